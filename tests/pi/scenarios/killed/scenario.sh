# After SIGKILL outputs stay as they were driven; `tidegate safe`, which systemd calls then, makes them safe.
pi drive 17 1
pi drive 22 1
pi start
pi wait 'running 2 flows'
pi expect 27 1
pi expect 23 1
pi expect 6 0

# Beside a running one it touches nothing.
if pi tidegate safe >/tmp/safe 2>&1; then exit 1; fi
grep 'a tidegate runs with these settings' /tmp/safe
pi is 27 1

# What ran is not what the files say any more.
pi wait 'outbox: start'
for copy in lamp pump; do
    tries=100
    until [ -e state/$copy.toml ] || [ $tries = 0 ]; do tries=$((tries - 1)); usleep 50000; done
    [ -e state/$copy.toml ]
done
echo 'not a flow' >flows/lamp.toml
rm flows/pump.toml
pi wait 'pump.toml is gone'
pi is 27 1
pi is 23 1

pi signal KILL
pi ended 137
pi is 27 1
pi is 23 1
pi is 6 0

pi tidegate safe --config tidegate.toml
pi is 27 0
pi is 23 0
pi is 6 1
