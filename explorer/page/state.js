// What is chosen, and its form in the address: everything that differs from the beginning, so that links are short and say what
// matters. Texts of files travel in the address too, compressed, as long as they are short.

export const beginning = Object.freeze({
  schedule: "1f1b", p: 4, m: 8, v: 2,
  f: 1, i: 1, w: 1, batch: 0, fix: 0,
  lat: 0, bw: 0,
  act: 64, bound: 0, par: 0, cap: 0,
  beside: "", tab: "compare", tour: 0, at: 0, theme: "auto",
  evaluations: 400, placement: "loop", actcap: 0,
});

/** Texts of files by what they are: csv, cost, layers, plan, plan_schedule, trace. */
export const longest_text_in_address = 60_000;

const MIB = 1048576;
const GB_PER_SECOND_IN_BYTES_PER_MS = 1e6;

/** The request that the C++ code understands, for the schedule of that name. */
export function request_of(state, files, schedule) {
  const request = {ask: "play", schedule, ranks: state.p, microbatches: state.m, stages_per_rank: state.v};
  if (schedule === "file" && files.csv) request.csv = files.csv;
  if (state.batch > 0) Object.assign(request, {batch: state.batch, fixed_samples: state.fix});
  if (files.cost) request.cost = files.cost;
  else if (files.layers) Object.assign(request, {layers: files.layers, batch: state.batch || 32});
  else {
    request.share = {
      forward_ms: state.f, input_backward_ms: state.i, weight_backward_ms: state.w,
      activation_bytes: Math.round(state.act * MIB), boundary_bytes: Math.round(state.bound * MIB),
      parameter_bytes: Math.round(state.par * MIB), optimizer_bytes: Math.round(2 * state.par * MIB),
    };
    request.link = {latency_ms: state.lat};
    if (state.bw > 0) request.link.bandwidth_bytes_per_ms = state.bw * GB_PER_SECOND_IN_BYTES_PER_MS;
    if (state.cap > 0) request.memory_cap_bytes = Math.round(state.cap * MIB);
  }
  return request;
}

function to_base64url(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function from_base64url(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), letter => letter.charCodeAt(0));
}

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

/** The part of the address that holds the files, or nothing where they are too long for one. */
export async function pack(files) {
  const text = JSON.stringify(files);
  if (text === "{}" || text.length > longest_text_in_address) return "";
  return to_base64url(await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(text)));
}

async function unpack(text) {
  const files = JSON.parse(new TextDecoder().decode(await through(new DecompressionStream("deflate-raw"), from_base64url(text))));
  return Object.fromEntries(Object.entries(files).filter(([, value]) => typeof value === "string"));
}

/** `packed` is what `pack` made of the files. */
export function to_hash(state, packed) {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value !== beginning[key]) words.set(key, String(value));
  if (packed) words.set("files", packed);
  return "#" + words.toString();
}

/** State and files of an address. What is no number where one belongs is passed over. */
export async function from_hash(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const state = {...beginning};
  for (const [key, value] of words) {
    if (!(key in beginning)) continue;
    if (typeof beginning[key] === "string") state[key] = value.slice(0, 200);
    else if (Number.isFinite(Number(value)) && value !== "") state[key] = Number(value);
  }
  let files = {};
  try {
    if (words.has("files")) files = await unpack(words.get("files"));
  } catch {
    // A link that was cut off still shows its numbers.
  }
  return {state, files};
}
