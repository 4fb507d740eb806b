// Brings a report to life: light or dark as the reader's system is, light on paper; charts; the table; copy and download.
// Given: drawCharts(element, props, watch) and enlivenTables(element), which are live_charts.js and metrics_table.js.

const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");
const setTheme = (dark) => document.body.classList.toggle("dark", dark);
setTheme(wantsDark.matches);
wantsDark.addEventListener("change", () => setTheme(wantsDark.matches));
window.addEventListener("beforeprint", () => setTheme(false));
window.addEventListener("afterprint", () => setTheme(wantsDark.matches));

const textOf = (id) => document.getElementById(id).textContent;
for (const block of document.querySelectorAll("[data-charts]")) drawCharts(block, { value: textOf(block.dataset.charts) }, () => {});
enlivenTables(document);

function saveText(text, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-take], [data-save]");
  if (!button) return;
  if (button.dataset.save) return saveText(textOf(button.dataset.save), button.dataset.name, button.dataset.type || "text/plain");
  const source = document.getElementById(button.dataset.take);
  const words = button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    window.getSelection().selectAllChildren(source);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = words), 3000);
});
