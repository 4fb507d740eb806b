// The list of earlier experiments: clicks on what has data-do become events; ticked runs stay ticked while the list is filtered or paged.
// Runs inside gr.HTML's js_on_load, which gives: element, trigger, watch.
const chosen = new Set();

let last = ""; // the control that was used last, which gets the focus back when the list is drawn anew

function drawn() {
  element.querySelectorAll("input[data-run]").forEach((box) => (box.checked = chosen.has(box.dataset.run)));
  if (last && (document.activeElement === document.body || !document.activeElement)) element.querySelector(last)?.focus({ preventScroll: true });
}

function told() {
  trigger("select", { runs: [...chosen] });
}

function untick(experiment) {
  const gone = [...chosen].filter((run) => run.startsWith(`${experiment}:`));
  gone.forEach((run) => chosen.delete(run));
  if (gone.length) told();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (!button) return;
  const { do: what, id } = button.dataset;
  last = `[data-do="${what}"][data-id="${id}"]`;
  if (what === "delete") untick(id);
  if (what === "pin") button.textContent = button.textContent === "Pin" ? "Unpin" : "Pin"; // before the server has answered
  trigger(["open", "again"].includes(what) ? "submit" : "click", { do: what, id });
});
element.addEventListener("change", (event) => {
  const run = event.target.dataset.run;
  if (!run) return;
  last = `[data-run="${run}"]`;
  event.target.checked ? chosen.add(run) : chosen.delete(run);
  told();
});
watch("value", drawn);
