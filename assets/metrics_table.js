// Sorts, copies and downloads tables of metrics (playground/results/metrics_table.py). Given: element, inside which the tables are; they may
// come and go. A metric's button orders the variants by it, best first; a variant's button orders the metrics by its distance from the
// baseline, largest first; a second press undoes it.

function cells(row, variant) {
  return row.querySelector(`[data-variant="${variant}"]`);
}

function announce(section, words) {
  const said = section.querySelector(".said-so");
  said.textContent = words;
  clearTimeout(said.timer);
  said.timer = setTimeout(() => (said.textContent = ""), 4000);
}

function sortRows(section, button) {
  const body = section.querySelector("tbody");
  const key = button.dataset.rows;
  const again = section.dataset.sorted === key;
  section.dataset.sorted = again ? "" : key;
  const place = (row) => Number(row.dataset.place);
  const apart = (row) => Number(cells(row, key)?.dataset.apart ?? -1);
  const by = { title: (a, b) => a.dataset.title.localeCompare(b.dataset.title) }[key] || ((a, b) => apart(b) - apart(a) || place(a) - place(b));
  body.append(...[...body.rows].sort(again ? (a, b) => place(a) - place(b) : by));
  for (const head of section.querySelectorAll("thead th")) head.setAttribute("aria-sort", "none");
  if (!again) button.closest("th").setAttribute("aria-sort", key === "title" ? "ascending" : "descending");
}

function orderColumns(section, button) {
  const row = button.closest("tr");
  const again = row.classList.contains("orders");
  const sign = row.dataset.direction === "lower" ? 1 : -1;
  const value = (cell) => (cell.dataset.value === undefined ? Infinity : sign * Number(cell.dataset.value));
  const order = [...row.querySelectorAll("td")]
    .sort((a, b) => (again ? 0 : value(a) - value(b)) || a.dataset.variant - b.dataset.variant)
    .map((cell) => cell.dataset.variant);
  for (const each of section.querySelectorAll("tr:not(.absent)")) each.append(...order.map((variant) => cells(each, variant)));
  for (const each of section.querySelectorAll("tr.orders")) {
    each.classList.remove("orders");
    each.querySelector("th button")?.removeAttribute("aria-pressed");
  }
  row.classList.toggle("orders", !again);
  if (!again) button.setAttribute("aria-pressed", "true");
}

async function copy(section, kind) {
  const text = section.dataset[kind];
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure context there is no clipboard object.
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return announce(section, "The browser does not allow copying: download it.");
  }
  announce(section, `Copied as ${kind.toUpperCase()}.`);
}

function download(section, kind) {
  const type = kind === "csv" ? "text/csv" : "application/json";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([section.dataset[kind]], { type: `${type};charset=utf-8` }));
  link.download = `metrics.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A class, since a :has() in the style sheet makes every change of the page's charts dear.
element.addEventListener("change", (event) => {
  if (event.target.matches(".metrics .show-absent")) event.target.closest(".metrics").classList.toggle("whole", event.target.checked);
});

element.addEventListener("click", (event) => {
  const button = event.target.closest(".metrics button");
  if (!button) return;
  const section = button.closest(".metrics");
  if (button.dataset.rows !== undefined) sortRows(section, button);
  else if (button.dataset.columns !== undefined) orderColumns(section, button);
  else if (button.dataset.copy) copy(section, button.dataset.copy);
  else if (button.dataset.download) download(section, button.dataset.download);
});
