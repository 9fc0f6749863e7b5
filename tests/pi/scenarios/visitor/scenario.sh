# A user who may not use the pins is told which file refuses, and what to do; flows without pins run.
pi start
pi wait '/dev/gpio(mem|chip0) refuses.*group `gpio`.*usermod -aG gpio'
pi wait 'still here'
[ "$(pi mode 27)" = 0 ]
pi stop
