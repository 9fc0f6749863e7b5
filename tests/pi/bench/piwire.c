// SPDX-License-Identifier: GPL-2.0
/*
 * piwire - test bench wires for an emulated Raspberry Pi's GPIO header, and
 * the /dev/gpiomem of Raspberry Pi OS.
 *
 *   echo "17 1" > /sys/kernel/piwire/drive   drive pin 17 to 1 from outside
 *   cat /sys/kernel/piwire/levels            "pin function level", pins 0-27
 *
 * QEMU's BCM283x GPIO model has no input lines and no edge detection: a level
 * only changes through GPSET/GPCLR while the pin is an output.  So a drive
 * makes the pin an output for a moment to latch the level; then, if the line's
 * interrupt is armed for that edge, it raises the interrupt in the kernel, so
 * that the GPIO character device on the real pinctrl-bcm2835 chip delivers it.
 */
#include <linux/gpio/consumer.h>
#include <linux/gpio/driver.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/irq.h>
#include <linux/kobject.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_address.h>

static void __iomem *regs;
static struct resource res;
static struct gpio_device *gdev;
static struct kobject *kobj;
static DEFINE_MUTEX(lock);

static u32 function(unsigned int p)
{
	return readl(regs + p / 10 * 4) >> (p % 10 * 3) & 7;
}

static void set_function(unsigned int p, u32 f)
{
	u32 v = readl(regs + p / 10 * 4) & ~(7u << (p % 10 * 3));

	writel(v | f << (p % 10 * 3), regs + p / 10 * 4);
}

static u32 level(unsigned int p)
{
	return readl(regs + 0x34 + p / 32 * 4) >> (p % 32) & 1;
}

static ssize_t drive_store(struct kobject *k, struct kobj_attribute *a, const char *buf, size_t n)
{
	unsigned int pin, val;
	struct gpio_desc *desc;
	u32 old, f;
	int irq, err = 0;

	if (sscanf(buf, "%u %u", &pin, &val) != 2 || pin > 53 || val > 1)
		return -EINVAL;
	mutex_lock(&lock);
	f = function(pin);
	if (f == 1) {	/* the program drives this pin itself: a short circuit */
		err = -EBUSY;
		goto out;
	}
	old = level(pin);
	set_function(pin, 1);
	writel(1u << (pin % 32), regs + (val ? 0x1c : 0x28) + pin / 32 * 4);
	set_function(pin, f);
	desc = gpio_device_get_desc(gdev, pin);
	irq = old == val || IS_ERR(desc) ? 0 : gpiod_to_irq(desc);
	if (irq > 0 && irq_has_action(irq) &&
	    irq_get_trigger_type(irq) & (val ? IRQ_TYPE_EDGE_RISING : IRQ_TYPE_EDGE_FALLING)) {
		generic_handle_irq_safe(irq);
		synchronize_irq(irq);
	}
out:
	mutex_unlock(&lock);
	return err ?: n;
}

static ssize_t levels_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	int n = 0, p;

	for (p = 0; p < 28; p++)
		n += sysfs_emit_at(buf, n, "%d %u %u\n", p, function(p), level(p));
	return n;
}

static struct kobj_attribute drive_attr = __ATTR_WO(drive);
static struct kobj_attribute levels_attr = __ATTR_RO(levels);
static struct attribute *attrs[] = { &drive_attr.attr, &levels_attr.attr, NULL };
static const struct attribute_group group = { .attrs = attrs };

static int gpiomem_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (vma->vm_pgoff || vma->vm_end - vma->vm_start > PAGE_SIZE)
		return -EINVAL;
	vma->vm_page_prot = pgprot_device(vma->vm_page_prot);
	return io_remap_pfn_range(vma, vma->vm_start, res.start >> PAGE_SHIFT,
				  vma->vm_end - vma->vm_start, vma->vm_page_prot);
}

static const struct file_operations gpiomem_fops = { .owner = THIS_MODULE, .mmap = gpiomem_mmap };
static struct miscdevice gpiomem = {
	.minor = MISC_DYNAMIC_MINOR, .name = "gpiomem", .fops = &gpiomem_fops, .mode = 0660,
};

static int __init piwire_init(void)
{
	static const char * const compat[] = { "brcm,bcm2835-gpio", "brcm,bcm2711-gpio" };
	static const char * const label[] = { "pinctrl-bcm2835", "pinctrl-bcm2711" };
	struct device_node *np = NULL;
	int i, err;

	for (i = 0; i < 2 && !np; i++)
		np = of_find_compatible_node(NULL, NULL, compat[i]);
	for (i = 0; i < 2 && !gdev; i++)
		gdev = gpio_device_find_by_label(label[i]);
	if (!np || !gdev)
		return -ENODEV;
	err = of_address_to_resource(np, 0, &res);
	if (err)
		return err;
	regs = of_iomap(np, 0);
	kobj = kobject_create_and_add("piwire", kernel_kobj);
	if (!regs || !kobj)
		return -ENOMEM;
	return sysfs_create_group(kobj, &group) ?: misc_register(&gpiomem);
}

module_init(piwire_init);	/* no exit: it stays until the Pi is switched off */
MODULE_DESCRIPTION("test bench wires for an emulated Raspberry Pi");
MODULE_LICENSE("GPL");
