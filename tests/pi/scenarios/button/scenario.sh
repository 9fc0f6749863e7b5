# A button switches a lamp, for a normal user; outputs are safe at the start and at the stop.
[ "$(pi mode 27)" = 0 ] # nobody drives it yet
[ "$(pi mode 6)" = 0 ]
pi start
pi wait 'running 1 flows'
pi expect 6 1
pi is 6 1
pi is 27 0

pi drive 17 1
pi expect 27 1
pi drive 17 0
pi expect 27 0
pi drive 17 1
pi expect 27 1
pi is 6 1

pi stop
pi is 27 0
pi is 6 1
