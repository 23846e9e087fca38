// The C++ code of the rooms, asked in JSON.
import createModule from "./penstock_module.mjs";

let module = null;

/** Loads the module, once. */
export async function start() {
  module = await createModule();
}

/** One question. An answer that the code refuses has `error` and `details`. */
export function ask(request) {
  const text = module.stringToNewUTF8(JSON.stringify(request));
  const answer = module._penstock_explore(text);
  module._free(text);
  if (answer === 0) return {error: "there is no memory left for the answer", details: ""};
  const result = JSON.parse(module.UTF8ToString(answer));
  module._free(answer);
  return result;
}
