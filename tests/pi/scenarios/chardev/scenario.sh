# All through the kernel's GPIO device, as on a board that is no Pi: a button switches a lamp, for a normal user. After SIGKILL the kernel lets
# go of the outputs; `tidegate safe` drives them for the moment that it runs.
pi start
pi wait 'board: chardev'
pi expect 6 1
pi is 6 1
pi is 27 0
pi drive 17 1
pi expect 27 1
pi drive 17 0
pi expect 27 0
pi burst 17 50
pi drive 17 1
pi expect 27 1

pi signal KILL
pi ended 137
[ "$(pi mode 27)" = 0 ] # an input again: what the circuit's resistor makes of it
pi tidegate safe --config tidegate.toml
