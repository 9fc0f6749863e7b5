// SPDX-License-Identifier: GPL-2.0
/*
 * pichips - chips on an I2C bus of their own, number 10, for an emulated
 * Raspberry Pi.
 *
 *   echo "76 1 d0 58" > /sys/kernel/pichips/set     at address 0x76, whose
 *           registers have 1 byte each, the registers from 0xd0 on hold 0x58
 *   echo "76" > /sys/kernel/pichips/remove          nobody answers there
 *
 * A chip is a table of registers, as most sensors are: the first byte written
 * is the register, what follows goes there, and reading begins there. What it
 * holds is what was set or written last: nothing is measured.
 */
#include <linux/i2c.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>

#define BUS 10

struct chip {
	u8 width;	/* bytes of a register; 0: nobody is there */
	u8 reg;		/* where reading begins */
	u8 bytes[512];
};

static struct chip chips[128];
static DEFINE_MUTEX(lock);

static void write_bytes(struct chip *chip, unsigned int reg, const u8 *from, unsigned int n)
{
	unsigned int at = reg * chip->width, i;

	for (i = 0; i < n; i++)
		chip->bytes[(at + i) % sizeof(chip->bytes)] = from[i];
}

static int message(struct i2c_msg *msg)
{
	struct chip *chip = &chips[msg->addr & 0x7f];
	unsigned int i;

	if (!chip->width)
		return -EREMOTEIO;	/* what the Pi's own bus says */
	if (msg->flags & I2C_M_RD) {
		for (i = 0; i < msg->len; i++)
			msg->buf[i] = chip->bytes[(chip->reg * chip->width + i) % sizeof(chip->bytes)];
	} else if (msg->len) {
		chip->reg = msg->buf[0];
		write_bytes(chip, chip->reg, msg->buf + 1, msg->len - 1);
	}
	return 0;
}

static int transfer(struct i2c_adapter *adapter, struct i2c_msg *msgs, int n)
{
	int i, err = 0;

	mutex_lock(&lock);
	for (i = 0; i < n && !err; i++)
		err = message(&msgs[i]);
	mutex_unlock(&lock);
	return err ?: n;
}

static u32 functionality(struct i2c_adapter *adapter)
{
	return I2C_FUNC_I2C | I2C_FUNC_SMBUS_EMUL;
}

static const struct i2c_algorithm algorithm = { .master_xfer = transfer, .functionality = functionality };
static struct i2c_adapter adapter = {
	.owner = THIS_MODULE, .algo = &algorithm, .nr = BUS, .name = "pichips",
};

static ssize_t set_store(struct kobject *k, struct kobj_attribute *a, const char *buf, size_t n)
{
	unsigned int address, width, reg, byte, count = 0;
	const char *at = buf;
	u8 bytes[256];
	int used;

	if (sscanf(at, "%x %u %x%n", &address, &width, &reg, &used) != 3 ||
	    address > 127 || width < 1 || width > 2 || reg > 255)
		return -EINVAL;
	for (at += used; count < sizeof(bytes) && sscanf(at, "%x%n", &byte, &used) == 1; at += used)
		bytes[count++] = byte;
	mutex_lock(&lock);
	chips[address].width = width;
	write_bytes(&chips[address], reg, bytes, count);
	mutex_unlock(&lock);
	return n;
}

static ssize_t remove_store(struct kobject *k, struct kobj_attribute *a, const char *buf, size_t n)
{
	unsigned int address;

	if (sscanf(buf, "%x", &address) != 1 || address > 127)
		return -EINVAL;
	mutex_lock(&lock);
	chips[address].width = 0;
	mutex_unlock(&lock);
	return n;
}

static struct kobj_attribute set_attr = __ATTR_WO(set);
static struct kobj_attribute remove_attr = __ATTR_WO(remove);
static struct attribute *attrs[] = { &set_attr.attr, &remove_attr.attr, NULL };
static const struct attribute_group group = { .attrs = attrs };

static int __init pichips_init(void)
{
	struct kobject *kobj = kobject_create_and_add("pichips", kernel_kobj);

	if (!kobj)
		return -ENOMEM;
	return sysfs_create_group(kobj, &group) ?: i2c_add_numbered_adapter(&adapter);
}

module_init(pichips_init);	/* no exit: it stays until the Pi is switched off */
MODULE_DESCRIPTION("I2C chips for an emulated Raspberry Pi");
MODULE_LICENSE("GPL");
