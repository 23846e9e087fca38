// The C++ code of the rooms, asked in JSON.
import createModule from "./penstock_module.mjs";

let module = null;

/** Loads the module, once. */
export async function start() {
  module = await createModule();
}

/** One question. An answer that the code refuses has `error` and `details`. */
export function ask(request) {
  const text = JSON.stringify(request);
  const size = module.lengthBytesUTF8(text) + 1;
  const copy = module._malloc(size);
  module.stringToUTF8(text, copy, size);
  const answer = module._penstock_explore(copy);
  module._free(copy);
  if (answer === 0) return {error: "there is no memory left for the answer", details: ""};
  const result = JSON.parse(module.UTF8ToString(answer));
  module._free(answer);
  return result;
}
