# On a Pi 4, whose chip has another name, a button switches a lamp as on a Pi 3.
pi start
pi wait 'running 1 flows'
pi drive 17 1
pi expect 27 1
pi drive 17 0
pi expect 27 0
pi drive 17 1
pi expect 27 1
pi is 27 1
pi stop
pi is 27 0
