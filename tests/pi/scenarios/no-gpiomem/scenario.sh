# Without the file that Raspberry Pi OS has for the pins, the message says that it is missing; flows without pins run.
rm /dev/gpiomem
pi start
pi wait 'no /dev/gpiomem'
pi wait 'still here'
pi stop
