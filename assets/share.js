// Makes the form's link whole, since only the browser knows the page's address, and copies link and command.
// Runs inside gr.HTML's js_on_load, which gives: element, watch.
function whole() {
  const link = element.querySelector("[data-query]");
  if (!link) return;
  const query = link.dataset.query;
  link.textContent = location.origin + location.pathname + (query ? `?${query}` : "");
}

element.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code); // where the browser lets no page write to the clipboard
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
});
watch("value", whole);
whole();
