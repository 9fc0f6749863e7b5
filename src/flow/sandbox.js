// Runs once in each new sandbox, before any script of a flow.
//
// The limit on work counts jumps and calls of scripts; a built-in function that runs long by itself is not among them.
// So those that can are given a limit on the size of what they work on. Then everything that scripts share is frozen.
(() => {
  "use strict";
  const LONGEST_LIST = 100_000;
  const LONGEST_TEXT = 65_536;
  const apply = Reflect.apply;

  const guard = (owner, name, limit, what) => {
    const original = owner[name];
    const check = (value) => {
      if (value !== null && value !== undefined && value.length > limit) {
        throw new RangeError(`${name}() works on at most ${limit} ${what} here`);
      }
    };
    const guarded = {
      [name](...given) {
        check(this);
        for (let i = 0; i < given.length; i += 1) check(given[i]);
        return apply(original, this, given);
      },
    }[name];
    Object.defineProperty(owner, name, { value: guarded });
  };

  for (const name of Object.getOwnPropertyNames(Array.prototype)) {
    if (name !== "constructor" && typeof Array.prototype[name] === "function") {
      guard(Array.prototype, name, LONGEST_LIST, "elements");
    }
  }
  for (const name of ["from", "of"]) guard(Array, name, LONGEST_LIST, "elements");
  for (const name of Object.getOwnPropertyNames(String.prototype)) {
    if (name !== "constructor" && name !== "repeat" && typeof String.prototype[name] === "function") {
      guard(String.prototype, name, LONGEST_TEXT, "characters");
    }
  }
  const repeat = String.prototype.repeat;
  Object.defineProperty(String.prototype, "repeat", {
    value: function (times) {
      if (this.length * times > LONGEST_TEXT) throw new RangeError(`repeat() makes at most ${LONGEST_TEXT} characters here`);
      return apply(repeat, this, [times]);
    },
  });

  // Flows do the same every time: there is no clock here, and no chance.
  delete Math.random;

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
  freeze(Object.getPrototypeOf(function* () {}), seen);
  freeze(Object.getPrototypeOf([][Symbol.iterator]()), seen);
  freeze(Object.getPrototypeOf(""[Symbol.iterator]()), seen);
  freeze(Object.getPrototypeOf(new Map().entries()), seen);
  freeze(globalThis, seen);
})();
