//! Options that no example shows and that chance does not put together: those that exclude each other, belong together, or
//! have a form of their own.

use crate::nodes::node_types;

/// A node type and options; the node reads `one` and `two`.
pub(super) const MORE: &[(&str, &str)] = &[
    (
        "window",
        "kind = 'sliding'\nsize = '10s'\nmost = 40\nby = 'topic'\nmost_keys = 2
         compute = ['count', 'sum', 'first', 'last', 'variance', 'p99.9', 'median', 'distinct', 'histogram(0, 10)']",
    ),
    (
        "window",
        "kind = 'session'\ngap = '1s'\nlongest = '1m'\nby = 'payload'\nmost_keys = 3
         compute = ['range', 'slope', 'stddev', 'p10', 'time_weighted_mean', 'duration_below(0)']",
    ),
    (
        "window",
        "kind = 'count'\ncount = 3\nlongest = '1m'\nlateness = '1s'\ncompute = ['distinct', 'count']",
    ),
    (
        "window",
        "kind = 'state'\nstate = 'payload > 1'\nlongest = '1m'\ncompute = ['duration_above(1)', 'first', 'p50']",
    ),
    (
        "window",
        "size = '1m'\nby = 'topic'\nmost_keys = 2\nlateness = '10s'\nfuture = '1h'
         compute = ['sum', 'median', 'distinct', 'histogram(-1, 0, 1e300)', 'variance', 'range']",
    ),
    ("limits", "high_high = 9\nhigh = 8\nlow = 2\nlow_low = 1"),
    ("gps", "baud = 38400"),
    (
        "modbus",
        "port = 'ttyUSB0'\nbaud = 9600\nparity = 'none'\nstop_bits = 1\nword_order = 'little'
         registers = { a = { address = 1, type = 'f32' } }",
    ),
    (
        "uplink",
        "topic = 'a/{topic}'\nlive_first = true\nreplay_topic = 'b/{topic}'\nexpires = '1m'\npriority = 'low'",
    ),
    ("scd4x", "pressure = 950\nself_calibration = false"),
    ("mpu6050", "max_g = 8\nmax_deg_s = 2000"),
    ("rate", "of = 'pulses'\nzero_after = '1m'"),
    ("ewma", "target = 20\nstddev = 2"),
    ("calibrate", "linear = { gain = 1.02, offset = -0.3 }"),
    ("calibrate", "polynomial = [1.5, 2, 0.1]"),
    (
        "calibrate",
        "table = [[0, 1], [10, 20], [100, -5]]\noutside = 'extend'",
    ),
    (
        "calibrate",
        "steinhart_hart = { a = 1.129148e-3, b = 2.34125e-4, c = 8.76741e-8 }",
    ),
    (
        "calibrate",
        "thermistor = { beta = 3950, r0 = 10000, t0 = 20 }\ndivider = { resistor = 10000, supply = 3.3, side = 'top' }",
    ),
    (
        "change",
        "rules = [{ set = 'payload.a[0]', from = 'time' }, { delete = 'payload.b' },
                  { change = 'topic', find = 'a', with = 'bb' }, { move = 'payload.a', to = 'headers.n' }]",
    ),
    ("convert", "unit = 'degC'\nto = 'K'"),
    ("csv", "action = 'stringify'\ncolumns = ['a', 'b']"),
    ("csv", "action = 'parse'\noutput = 'list'\nheader = true"),
    (
        "function",
        "outputs = 2\nstate = { n = 0, all = [1] }
         code = 'state.all.push(msg.payload); state.n += 1; return [msg, [{ payload: state }, null, msg]];'",
    ),
    ("join", "mode = 'text'\nwith = ', '\ncount = 2"),
    ("join", "mode = 'list'\nevery = '1s'\ncount = 3"),
    (
        "join",
        "mode = 'merge'\nkeys = ['a']\nkeep = true\ntimeout = '1m'",
    ),
    ("join", "timeout = '1s'\npartial = true"),
    ("batch", "count = 3\noverlap = 2"),
    ("throttle", "every = '1s'\nmode = 'queue'\nmost = 2"),
    ("lag", "count = 3"),
    ("rate", "wraps_at = 65536\nper = '1m'"),
    ("pwm out", "pin = 4\nfrequency = 50"),
    ("rate", "resets = true"),
    ("rate", "of = 'pulses'\nzero_after = '10s'"),
    ("counter", "reset = 'two'\nadd = 'payload'"),
    ("integrate", "per = '1s'\nreset = 'two'\nmethod = 'hold'"),
    ("smooth", "factor = 0.1"),
    (
        "pid",
        "kp = 1\nki = 0.5\nkd = 0.1\nsetpoint_from = 'two'\nderivative_filter = '1s'\nout = [-1, 1]\nstart = 0.5",
    ),
    (
        "switch",
        "match = 'all'\nrules = [{ between = ['a', 'b'] }, { contains = 'n' }, { has = 'a' }, { matches = '(a+)+$' },
                  { is = 'nan' }, { null = true }, { '!=' = [1, { a = 2 }] }, { '>=' = 1 }, { else = true, to = 'rest' }]",
    ),
    (
        "template",
        "template = '{\"a\": \"{{payload.a[0]}}\", \"b\": {{time}}}'\nset = 'headers.whole'\nformat = 'json'",
    ),
];

/// A whole flow with such a node.
pub(super) fn flow(node_type: &str, options: &str) -> String {
    let has_output =
        node_types().any(|it| it.name == node_type && (!it.ports.is_empty() || it.names_ports));
    let has_input = node_types().any(|it| it.name == node_type && it.has_input);
    let from = if has_input {
        "from = ['one', 'two']"
    } else {
        ""
    };
    let sink = if has_output {
        "[nodes.sink]\ntype = 'debug'\nfrom = 'tested'"
    } else {
        ""
    };
    format!(
        "[nodes.one]\ntype = 'inject'\nevery = '1s'\n[nodes.two]\ntype = 'inject'\nevery = '90s'\npayload = 1
         [nodes.tested]\ntype = '{node_type}'\n{from}\n{options}
         {sink}"
    )
}
