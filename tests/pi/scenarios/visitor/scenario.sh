# A user who may not use the pins is told which file refuses, and what to do; flows without pins run.
pi start
pi wait '/dev/gpiomem refuses.*group `gpio`.*usermod -aG gpio'
pi wait 'still here'
[ "$(pi mode 27)" = 0 ]
pi stop
