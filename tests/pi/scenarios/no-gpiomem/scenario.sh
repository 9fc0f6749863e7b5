# Without the file that Raspberry Pi OS has for the pins, the log says that it is missing, and that all goes through the kernel
# instead; it does.
rm /dev/gpiomem
pi start
pi wait 'chardev.*no /dev/gpiomem'
pi wait 'still here'
pi drive 17 1
pi expect 27 1
pi drive 17 0
pi expect 27 0
pi stop
