// Runs in the page, after the operator's script. Given the path of a function, how to pass a request,
// and how long (ms) to wait for an answer that is a promise, it answers the name of what it found
// instead of a function; or a function that signs a list in one call:
//   text of a JSON list of requests → text of a JSON list of {"v": answer} or {"e": name of the failure}
// One member's failure is that member's alone. Nothing of a thrown error but its name leaves the page.
(path, argument, patience) => {
  let owner;
  let found = globalThis;
  for (const name of path.split(".")) {
    owner = found;
    found = found === undefined || found === null ? undefined : found[name];
  }
  if (typeof found !== "function") return found === null ? "null" : typeof found;

  const longest = 16384;
  const pass = { query: (r) => r.query, url: (r) => r.url, request: (r) => r }[argument];
  const failed = (error) => {
    const name = error !== null && typeof error === "object" ? String(error.name) : typeof error;
    return JSON.stringify({ e: /^\w{1,40}$/.test(name) ? name : "Error" });
  };
  const answered = (value) => {
    const text = JSON.stringify({ v: value === undefined ? null : value });
    return text.length > longest ? JSON.stringify({ e: "TooLong" }) : text;
  };
  const guarded = (act, value) => {
    try {
      return act(value);
    } catch (error) {
      return failed(error);
    }
  };
  const late = (promise) => {
    let timer;
    const bell = new Promise((resolve) => {
      timer = setTimeout(resolve, patience, JSON.stringify({ e: "Late" }));
    });
    const answer = promise.then((value) => guarded(answered, value), failed);
    return Promise.race([answer, bell]).finally(() => clearTimeout(timer));
  };
  const one = (request) => {
    try {
      const value = found.call(owner, pass(request));
      const waits = value !== null && typeof value === "object" && typeof value.then === "function";
      return waits ? late(Promise.resolve(value)) : guarded(answered, value);
    } catch (error) {
      return failed(error);
    }
  };
  return (list) => {
    const answers = JSON.parse(list).map(one);
    const whole = (texts) => "[" + texts.join(",") + "]";
    return answers.every((a) => typeof a === "string") ? whole(answers) : Promise.all(answers).then(whole);
  };
}
