// What changes while somebody reads it: details that were opened stay open when it is drawn anew.
// Runs inside gr.HTML's js_on_load, which gives: element, watch.
const open = new Set();
const name = (details) => details.querySelector("summary").textContent;

element.addEventListener("toggle", ({ target }) => (target.open ? open.add(name(target)) : open.delete(name(target))), true); // does not bubble
watch("value", () => element.querySelectorAll("details").forEach((details) => (details.open = open.has(name(details)))));
