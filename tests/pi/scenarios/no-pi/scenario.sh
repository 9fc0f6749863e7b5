# On another board nothing is driven, and it is said how to go on; flows without pins run.
pi start
pi wait 'no Raspberry Pi found: .*Pine64 RockPro64.*kind = "simulated"'
pi wait 'still here'
[ "$(pi mode 27)" = 0 ]
pi stop

if pi tidegate safe >/tmp/safe 2>&1; then exit 1; fi
grep 'no Raspberry Pi found' /tmp/safe
