# A temperature on the Pi's own I2C bus, read by Tidegate's own driver as the user `pi`, switches a relay.
pi temp 21
pi start
pi wait 'running 1 flows'
pi expect 27 0
pi temp 30.25
pi wait '30\.25'
pi expect 27 1
pi temp -10.5
pi wait '-10\.5'
pi expect 27 0
pi stop
