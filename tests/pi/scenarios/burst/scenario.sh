# Of 200 pulses, one right after the other, no edge is lost and none counted twice.
pi start
pi wait 'outbox: start'
pi wait 'level: 0' # armed, and read once
pi burst 17 200
pi wait 'pieces: 200'
pi wait 'edges: 400'
# What comes late would be counted too.
sleep 2
pi unsaid 'pieces: 201'
pi unsaid 'edges: 401'
pi tidegate outbox show --json >/tmp/totals
grep '"edges_dropped":0,' /tmp/totals
pi stop
