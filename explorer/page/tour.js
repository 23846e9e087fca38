// Seven steps that tell how pipelines came to be; each sets the page to the picture that it speaks of.
import {element} from "./paint.js";

const alike = {f: 1, i: 1, w: 1, batch: 8, fix: 0, lat: 0, bw: 0, bound: 0, act: 16, par: 0, cap: 0, v: 2, beside: "", tab: "compare", at: 0};

export const steps = [
  {title: "One device",
    state: {...alike, schedule: "naive", p: 1, m: 1, f: 3, i: 3, w: 3, act: 48},
    text: ["One device holds the whole network. It runs the 8 samples of a minibatch forward (blue) and then backward (orange), which takes twice as long, as it finds two gradients: that of the input and that of the weights.",
      "The device is busy all of the time. Nothing is wrong with that, until the network no longer fits on it or takes too long."],
    task: "Press Play and watch the step of 72 ms."},
  {title: "The cut",
    state: {...alike, schedule: "naive", p: 3, m: 1},
    text: ["Cut the network by its layers into three stages and give each to a device of its own. A third of the network takes a third of the time. The first device passes its result on to the second, and so on; at the end the loss is known, and the gradients travel back.",
      "Only what crosses the two cuts is sent, so even slow links will do."],
    task: "A step still takes 72 ms. Press Step ▸ a few times to see why."},
  {title: "Idle devices",
    state: {...alike, schedule: "naive", p: 3, m: 1, at: 0.5},
    text: ["Nothing can be computed before its input is there. So one device works at each moment, and the others wait: each of them computes 24 ms and is idle for 48 of 72 ms, a bubble of two thirds.",
      "More devices make it no better: with p devices the bubble is 1 − 1/p."],
    task: "Move “Devices” to 6 and look at the bubble, then go on."},
  {title: "Microbatches",
    state: {...alike, schedule: "gpipe", p: 3, m: 8},
    text: ["The cure: cut the minibatch into microbatches. While the second device works on the first one, the first device begins the second one. All gradients are added up, and there is one update at the end, as if the minibatch had gone through in one piece.",
      "With 8 microbatches a step takes 30 ms, and each device is idle for 6 of them: the pipeline has to fill and to drain, which is (p − 1) passes of a microbatch, however many there are."],
    task: "Move “Microbatches” between 1 and 8: the bubble is 2/(m + 2)."},
  {title: "1F1B and memory",
    state: {...alike, schedule: "1f1b", p: 3, m: 8, beside: "gpipe"},
    text: ["There is a price. A forward pass keeps its activations until the backward pass has used them. GPipe does all forwards first and so holds those of all 8 microbatches, 128 MiB here (the violet strips).",
      "1F1B goes back as soon as it can: one forward, one backward, in turns. It takes the same time and never holds more than p microbatches: 48 MiB."],
    task: "Set 16 samples and 16 microbatches: GPipe's memory doubles, that of 1F1B stays."},
  {title: "Splitting the backward",
    state: {...alike, schedule: "zb-v", p: 3, m: 8, beside: "1f1b"},
    text: ["A backward does two things. The stage before waits for the gradient of the input (yellow); nobody waits for that of the weights (green) until the update. Do the first at once, and keep the second for a moment at which the device would be idle: the bubble fills up.",
      "ZB-V also gives each device two stages, one from the front and one from the end of the network (the lighter boxes are the front). Each device then works without a gap from its first action to its last."],
    task: "Compare the two steps: 25 ms and 30 ms. The table below has all published schedules."},
  {title: "The best number",
    state: {...alike, schedule: "1f1b", p: 3, m: 8, batch: 64, fix: 2, tab: "sweep"},
    text: ["Why not a thousand microbatches? Because small ones use a device badly. Here each costs as much as two samples beside its own, so that a microbatch of one sample (3) costs half of one of four (6).",
      "Few microbatches leave a bubble, many waste their fixed cost. Between them is a best number, and the curve below finds it by playing each: 8."],
    task: "Set the fixed cost to 0, then to 8, and see where the lowest point goes."},
];

/** Shows a step, or nothing for 0. `go` is called with a step's number, 0 to leave. */
export function show_tour(box, number, go) {
  box.hidden = number === 0;
  box.replaceChildren();
  if (number === 0) return;
  const step = steps[number - 1];
  box.append(element("h2", {id: "tour-title", tabindex: "-1"}, `${number} of ${steps.length}: ${step.title}`));
  for (const text of step.text) box.append(element("p", {}, text));
  box.append(element("p", {}, element("strong", {}, "Try: "), step.task));
  const last = number === steps.length;
  box.append(element("div", {class: "buttons"},
    element("button", {type: "button", id: "tour-back", disabled: number === 1, onclick: () => go(number - 1)}, "Back"),
    element("button", {type: "button", id: "tour-next", class: "primary", onclick: () => go(last ? 0 : number + 1)}, last ? "Finish" : "Next"),
    element("button", {type: "button", id: "tour-end", onclick: () => go(0)}, "Leave the tour")));
}
