# A pin that a driver of the kernel holds is named, with what to do; the other flows go on.
base=$(cat /sys/class/gpio/gpiochip*/base | head -n 1)
echo $((base + 22)) >/sys/class/gpio/export
pi start
pi wait 'running 2 flows'
pi wait 'GPIO22 is in use.*(gpioinfo|unexport)'
pi drive 17 1
pi expect 27 1
pi drive 17 0
pi expect 27 0
pi stop
