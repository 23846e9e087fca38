// What is asked beyond one picture: all schedules beside each other, the best number of microbatches, a schedule made for the
// costs, and files.
import {ask} from "./engine.js";
import {element} from "./paint.js";
import {request_of} from "./state.js";
import {draw_sweep} from "./sweep.js";
import {show_files} from "./files.js";

export const tabs = [
  {key: "compare", title: "Compare all schedules", show: show_compare},
  {key: "sweep", title: "How many microbatches?", show: show_sweep},
  {key: "synthesise", title: "Make a schedule", show: show_synthesis},
  {key: "files", title: "Files", show: show_files},
];

function header(...names) {
  return element("tr", {}, ...names.map(name => element("th", {scope: "col"}, name)));
}

function refused_list(refused, families) {
  if (refused.length === 0) return "";
  return element("details", {}, element("summary", {}, `${refused.length} cannot be played here`),
    element("ul", {}, ...refused.map(one => element("li", {}, title_of(families, one.schedule) + ": " + one.reason))));
}

export function title_of(families, name) {
  return families.find(family => family.name === name)?.title ?? (name === "file" ? "your schedule" : name);
}

function show_compare(box, {state, files, families, change}) {
  const answer = ask({...request_of(state, files, state.schedule), ask: "compare", csv: undefined});
  if (answer.error) return box.append(element("p", {class: "over"}, answer.error));
  const with_bytes = answer.schedules.some(one => one.figures.peak_memory);
  const beside = state.beside ? state.beside.split(",") : [];
  const rows = answer.schedules.map(({answer: played, figures}) => {
    const name = played.schedule;
    const pressed = beside.includes(name), is_over = figures.over_caps.length > 0;
    return element("tr", {class: name === state.schedule ? "chosen" : "", "data-schedule": name},
      element("td", {}, title_of(families, name)), element("td", {}, String(played.stages)), element("td", {}, figures.makespan),
      element("td", {}, figures.bubble_makespan), element("td", {}, figures.bubble_span), element("td", {}, String(figures.peak_activations)),
      with_bytes ? element("td", {class: is_over ? "over" : ""}, (is_over ? "▲ " : "") + figures.peak_memory) : "",
      element("td", {}, element("button", {type: "button", disabled: name === state.schedule, onclick: () => change({schedule: name})}, "choose"), " ",
        element("button", {type: "button", "aria-pressed": String(pressed), disabled: name === state.schedule,
          onclick: () => change({beside: (pressed ? beside.filter(one => one !== name) : [...beside, name].slice(-3)).join(",")})}, pressed ? "hide" : "beside")));
  });
  box.append(element("p", {}, "Every published schedule with these costs, the smallest bubble first. A device has the same share of the network in all of them; with more stages each is smaller. “Beside” draws one under the chosen schedule, over the same time." +
      (answer.schedules.some(one => one.figures.over_caps.length > 0) ? " ▲: above the memory cap." : "")),
    element("table", {id: "comparison"}, element("thead", {}, header("schedule", "stages", "step", "bubble of the step", "of a rank's span", "peak activations", ...(with_bytes ? ["peak memory"] : []), "")),
      element("tbody", {}, ...rows)),
    refused_list(answer.refused, families));
}

function show_sweep(box, {state, files, families, change}) {
  if (state.batch < 1 && !files.layers) {
    box.append(element("p", {}, "With these settings a microbatch costs the same, whatever it holds. To ask for the best number, say how many samples a minibatch has and what a microbatch costs beside its samples."),
      element("button", {type: "button", id: "use-samples", onclick: () => change({batch: 64, fix: 2})}, "64 samples, a fixed cost of 2 samples"));
    return;
  }
  const beside = state.beside ? state.beside.split(",") : [];
  const names = [...new Set([state.schedule, ...beside, "gpipe", "1f1b", "zb-h1", "zb-v"])].filter(name => name !== "file" && name !== "forward-only");
  const answer = ask({...request_of(state, files, names[0]), ask: "sweep", csv: undefined, schedules: names});
  if (answer.error) return box.append(element("p", {class: "over"}, answer.error));
  const chosen = answer.points.filter(point => point.schedule === state.schedule);
  const own = chosen.filter(point => point.fits).reduce((best, point) => !best || point.step_ms < best.step_ms ? point : best, null);
  box.append(element("p", {class: "sentence", id: "sweep-sentence"}, own ? `With ${title_of(families, state.schedule)} the best number is ${own.microbatches}: a step takes ${own.step}.` : "Of all schedules below: " + answer.sentence),
    element("p", {}, `Of all schedules below: ${answer.sentence}. Numbers that divide the ${state.batch} samples are looked at. Choose one in the picture or in the table.`));
  const canvas = element("canvas", {role: "img", id: "sweep-picture", "aria-label": "Step time over the number of microbatches; the table below has the figures."});
  box.append(canvas);
  draw_sweep(canvas, answer.points, state, name => title_of(families, name), microbatches => change({m: microbatches}));
  const all_fit = chosen.every(point => point.fits);
  const rows = chosen.map(point => element("tr", {class: point.microbatches === state.m ? "chosen" : ""}, element("td", {}, String(point.microbatches)),
    element("td", {}, String(state.batch / point.microbatches)), element("td", {}, point.step),
    all_fit ? "" : element("td", {class: "over"}, point.fits ? "" : "▲ above the cap"),
    element("td", {}, element("button", {type: "button", onclick: () => change({m: point.microbatches})}, "show"))));
  if (rows.length > 0)
    box.append(element("table", {id: "sweep-table"}, element("thead", {}, header("microbatches", "samples each", "step", ...(all_fit ? [] : [""]), "")), element("tbody", {}, ...rows)));
  box.append(refused_list(answer.refused, families));
}

function show_synthesis(box, {state, files, families, change, take_schedule}) {
  box.append(element("p", {}, "The published schedules assume stages of equal times and free links. This looks for an order of passes for the times, links and caps that are set now; its backward is always split. The search is counted and not timed, so that a link shows the same schedule."));
  const placement = element("select", {id: "placement", onchange: event => change({placement: event.target.value})},
    element("option", {value: "loop"}, "loop: stage s on device s mod p"), element("option", {value: "v"}, "v: to and fro over the devices"));
  placement.value = state.placement;
  const cap = element("input", {type: "number", id: "actcap", min: "0", step: "1", value: String(state.actcap), onchange: event => change({actcap: Math.max(0, Math.round(Number(event.target.value) || 0))})});
  const effort = element("select", {id: "evaluations", onchange: event => change({evaluations: Number(event.target.value)})},
    ...[[100, "short"], [400, "middling"], [2000, "long"], [10000, "very long"]].map(([count, name]) => element("option", {value: String(count)}, `${name}: ${count} orders`)));
  effort.value = String(state.evaluations);
  const result = element("p", {id: "found", role: "status"});
  const search = () => {
    result.textContent = "Searching…";
    // Only after the browser has painted the word.
    setTimeout(() => {
      const request = {...request_of(state, files, "1f1b"), ask: "synthesise", csv: undefined, placement: state.placement, evaluations: state.evaluations,
        stages_per_rank: state.placement === "v" ? 2 : undefined};
      if (state.actcap > 0) request.memory_cap = state.actcap;
      const answer = ask(request);
      if (answer.error) { result.textContent = answer.error; return; }
      take_schedule(answer.csv, state.schedule === "file" ? state.beside : state.schedule);
      document.getElementById("found").textContent = answer.found;
    }, 30);
  };
  box.append(element("p", {}, element("label", {}, "Placement ", placement)), element("p", {}, element("label", {}, "Most activations of a device (0: any number) ", cap)),
    element("p", {}, element("label", {}, "Effort ", effort)), element("button", {type: "button", class: "primary", id: "search", onclick: search}, "Search"), result);
}
