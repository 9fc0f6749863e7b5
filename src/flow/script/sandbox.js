// Runs once in each new sandbox, before any script of a flow. `now` gives the engine's time in milliseconds, NaN where there is none.
//
// The limit on work counts jumps and calls of scripts; a built-in function that runs long by itself is not among them.
// So those that can are given a limit on the size of what they work on, and the work is counted by that size. What makes
// code of text, and with it BigInts, is taken away. Then everything that scripts share is frozen.
(function (now) {
  "use strict";
  const LONGEST_LIST = 100_000;
  const LONGEST_TEXT = 65_536;
  const apply = Reflect.apply;
  const OriginalDate = Date;

  const define = (owner, name, value) => Object.defineProperty(owner, name, { value });

  // Makes steps that count, for work that does not.
  const spend = (steps) => {
    for (let i = steps; i > 0; i -= 1);
  };

  // The length of a list, or of what is used like one. It must not be computed: it would be another one the next time.
  const lengthOf = (name, list) => {
    if (list === null || list === undefined) return 0;
    if (Array.isArray(list) || typeof list === "string") return list.length;
    const length = Object.getOwnPropertyDescriptor(list, "length");
    if (length === undefined && !("length" in Object(list))) return 0;
    if (length === undefined || typeof length.value !== "number") throw new TypeError(`${name}() works on lists here`);
    return length.value;
  };

  const checkList = (name, list) => {
    const length = lengthOf(name, list);
    if (length > LONGEST_LIST) throw new RangeError(`${name}() works on at most ${LONGEST_LIST} elements here`);
    if (length > 16) spend(length >> 4);
  };

  const guardList = (owner, name, given_too) => {
    const original = owner[name];
    const guarded = {
      [name](...given) {
        checkList(name, this);
        if (given_too) for (let i = 0; i < given.length; i += 1) checkList(name, given[i]);
        return apply(original, this, given);
      },
    }[name];
    define(owner, name, guarded);
  };
  // Those that are not here call a function for each element, make a list of the size, or look at one place only.
  for (const name of [
    "copyWithin", "fill", "includes", "indexOf", "join", "lastIndexOf", "reverse", "shift", "slice", "sort",
    "splice", "toLocaleString", "toReversed", "toSorted", "toSpliced", "toString", "unshift", "with",
  ]) {
    guardList(Array.prototype, name, false);
  }
  guardList(Array.prototype, "concat", true);
  guardList(Array, "from", true);

  const flatten = (list, depth, into) => {
    checkList("flat", list);
    for (let i = 0; i < list.length; i += 1) {
      if (!(i in list)) continue;
      if (depth > 0 && Array.isArray(list[i])) flatten(list[i], depth - 1, into);
      else into.push(list[i]);
    }
    return into;
  };
  define(Array.prototype, "flat", function flat(depth = 1) {
    return flatten(this, depth, []);
  });
  define(Array.prototype, "flatMap", function flatMap(f, self) {
    return flatten(apply(Array.prototype.map, this, [f, self]), 1, []);
  });

  // A text, a function that replaces, a pattern, or what is turned into a text once, here.
  const checkText = (name, value, may_be_code) => {
    if (value === null || value === undefined || typeof value === "number" || typeof value === "boolean") return value;
    if (may_be_code && (typeof value === "function" || value instanceof RegExp)) return value;
    const text = String(value);
    if (text.length > LONGEST_TEXT) throw new RangeError(`${name}() works on at most ${LONGEST_TEXT} characters here`);
    return text;
  };
  for (const name of Reflect.ownKeys(String.prototype)) {
    const original = String.prototype[name];
    if (["constructor", "toString", "valueOf"].includes(name) || typeof original !== "function") continue;
    const title = String(name);
    const guarded = {
      [name](...given) {
        const self = checkText(title, this, false);
        let longest = 1;
        for (let i = 0; i < given.length; i += 1) {
          given[i] = checkText(title, given[i], true);
          if (typeof given[i] === "string" && given[i].length > longest) longest = given[i].length;
        }
        // A search may compare each character of the one with each of the other.
        if (typeof self === "string" && self.length * longest > 256) spend((self.length * longest) / 256);
        return apply(original, self, given);
      },
    }[name];
    define(String.prototype, name, guarded);
  }
  const repeat = String.prototype.repeat;
  define(String.prototype, "repeat", function (times) {
    if (this.length * times > LONGEST_TEXT) throw new RangeError(`repeat() makes at most ${LONGEST_TEXT} characters here`);
    return apply(repeat, this, [times]);
  });

  // When there is no memory left for what it makes, this one goes on to the end of the list all the same.
  const { raw } = String;
  define(String, "raw", (template, ...given) => {
    const texts = template.raw;
    checkList("raw", texts);
    return raw({ raw: texts }, ...given);
  });
  for (const name of ["encodeURI", "encodeURIComponent", "decodeURI", "decodeURIComponent", "escape", "unescape"]) {
    const original = globalThis[name];
    define(globalThis, name, { [name]: (text) => original(checkText(name, text, false)) }[name]);
  }

  const { parse, stringify } = JSON;
  define(JSON, "parse", (text, reviver) => {
    text = String(text);
    spend(text.length >> 4);
    return parse(text, reviver);
  });
  define(JSON, "stringify", (value, replacer, space) => {
    const text = stringify(value, replacer, space);
    if (text !== undefined) spend(text.length >> 4);
    return text;
  });

  // These go through an iterator of any length in one step, and keep nothing of it.
  for (const name of ["drop", "includes", "join"]) delete Iterator.prototype[name];
  delete Math.sumPrecise;
  const { Set } = globalThis;
  for (const name of [
    "difference", "intersection", "isDisjointFrom", "isSubsetOf", "isSupersetOf", "symmetricDifference", "union",
  ]) {
    const original = Set.prototype[name];
    define(Set.prototype, name, function (other) {
      return apply(original, this, [new Set(other.keys())]);
    });
  }

  // Code is what the flow's file shows: none is made of text, and none runs later. BigInts are left out because arithmetic
  // on large ones can take seconds in one step; the checker refuses their literals.
  const Code = function Function() {
    throw new TypeError("text cannot be turned into code here");
  };
  define(Code, "prototype", Function.prototype);
  const kinds = [() => {}, function* () {}, async () => {}, async function* () {}];
  const prototypes = kinds.map((kind) => Object.getPrototypeOf(kind));
  for (const prototype of prototypes) define(prototype, "constructor", Code);
  globalThis.Function = Code;
  globalThis.eval = Code;
  delete globalThis.BigInt;
  for (const name of ["Promise", "queueMicrotask"]) delete globalThis[name];
  delete Array.fromAsync;

  // What one script set here, the errors of the others would show.
  delete Error.prepareStackTrace;
  delete Error.stackTraceLimit;

  // Flows do the same every time: the only clock here is the engine's, and there is no chance.
  const currentTime = () => {
    const time = now();
    if (time !== time) throw new TypeError("an expression has no current time: use `time`, the message's own");
    return Math.floor(time);
  };
  globalThis.Date = function Date(...given) {
    if (new.target === undefined) return String(new OriginalDate(currentTime()));
    return Reflect.construct(OriginalDate, given.length === 0 ? [currentTime()] : given, new.target);
  };
  const { UTC, parse: parseDate } = OriginalDate;
  Object.assign(Date, { now: () => currentTime(), parse: parseDate, UTC });
  define(Date, "prototype", OriginalDate.prototype);
  define(OriginalDate.prototype, "constructor", Date);
  Math.random = () => {
    throw new TypeError("there is no chance here: a flow does the same every time");
  };

  // What is frozen on a prototype cannot be assigned to on its heirs: `this.name = "..."` in an Error would fail. So these
  // are looked up and set by functions.
  const leaveToHeirs = (prototype) => {
    for (const name of Reflect.ownKeys(prototype)) {
      const { value, get } = Object.getOwnPropertyDescriptor(prototype, name);
      if (get !== undefined) continue;
      Object.defineProperty(prototype, name, {
        get: () => value,
        set(other) {
          if (this === prototype) throw new TypeError(`'${String(name)}' is read-only`);
          Object.defineProperty(this, name, { value: other, writable: true, enumerable: true, configurable: true });
        },
      });
    }
  };
  const errors = Reflect.ownKeys(globalThis).filter((name) => String(name).endsWith("Error"));
  for (const owner of [Object, ...errors.map((name) => globalThis[name])]) leaveToHeirs(owner.prototype);

  const freeze = (value, seen) => {
    if ((typeof value !== "object" && typeof value !== "function") || value === null || seen.has(value)) return;
    seen.add(value);
    for (const key of Reflect.ownKeys(value)) {
      const property = Object.getOwnPropertyDescriptor(value, key);
      freeze(property.value, seen);
      freeze(property.get, seen);
      freeze(property.set, seen);
    }
    freeze(Object.getPrototypeOf(value), seen);
    Object.freeze(value);
  };
  const seen = new Set();
  // What no name leads to.
  const unnamed = [
    (async () => {})(), [].values(), "".matchAll(/x/g), ""[Symbol.iterator](), new Map().entries(), new Set().values(),
    [].values().map(() => {}), Iterator.from({ next() {} }), Iterator.concat(),
  ];
  for (const hidden of [...prototypes, ...unnamed.map((object) => Object.getPrototypeOf(object))]) freeze(hidden, seen);
  freeze(globalThis, seen);

  return [
    // Makes a function of the parts of a message out of one of a message.
    (body) => (payload, topic, time, source, headers) => body({ payload, topic, time, source, headers }),
    // What an object without fields of its own is in a message.
    (value) => {
      if (value instanceof OriginalDate) return isNaN(value) ? null : value.toISOString();
      const kind = apply(Object.prototype.toString, value, []).slice(8, -1);
      if (kind === "Object" || kind === "Arguments") return value;
      throw new TypeError(kind);
    },
  ];
})
