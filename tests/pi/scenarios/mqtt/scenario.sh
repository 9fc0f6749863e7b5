# An edge on a pin arrives at a broker on the other side of mutual TLS; so do those of the time when the broker was away.
pi start
pi wait 'running 1 flows'
pi host heard '/door.*"payload":0'
pi drive 17 1
pi host heard '/door.*"seq":2.*"payload":1'

pi host broker-stop
pi wait 'uplink down'
pi drive 17 0
pi drive 17 1
pi host broker-start
pi host heard '/door.*"seq":3.*"payload":0'
pi host heard '/door.*"seq":4.*"payload":1'
pi stop
