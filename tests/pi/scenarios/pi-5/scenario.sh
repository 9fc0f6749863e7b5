# QEMU has no Pi 5. One whose pins cannot be reached is told so, with the name of what a Pi 5 has; flows without pins run.
pi start
pi wait 'pinctrl-rp1'
pi wait 'still here'
pi stop

# `safe` cannot do it either, and must not say that it has.
if pi tidegate safe >/tmp/safe 2>&1; then exit 1; fi
grep 'pinctrl-rp1' /tmp/safe
