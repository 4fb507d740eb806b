// The list of earlier experiments: clicks on what has data-do become events; ticked runs stay ticked while the list is filtered or paged.
// Runs inside gr.HTML's js_on_load, which gives: element, trigger, watch.
const chosen = new Set();

function tick() {
  element.querySelectorAll("input[data-run]").forEach((box) => (box.checked = chosen.has(box.dataset.run)));
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) trigger(["open", "again"].includes(button.dataset.do) ? "submit" : "click", { do: button.dataset.do, id: button.dataset.id });
});
element.addEventListener("change", (event) => {
  const run = event.target.dataset.run;
  if (!run) return;
  event.target.checked ? chosen.add(run) : chosen.delete(run);
  trigger("select", { runs: [...chosen] });
});
watch("value", tick);
