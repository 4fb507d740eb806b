// Keeps the device strip current: asks the server, draws in place, waits as long as the server says. A hidden page asks nothing.
// While a timed pass needs the processor, the server says so, and the page holds still (assets/quiet.js, style.css).
// Runs inside gr.HTML's js_on_load, which gives: element, server.

async function tick() {
  if (!element.isConnected) return;
  let again = 5000;
  if (!document.hidden) {
    try {
      const { html, again_ms, quiet } = await server.sample();
      again = again_ms;
      document.documentElement.toggleAttribute("data-quiet", quiet);
      const strip = element.querySelector(".strip");
      if (strip && strip.outerHTML !== html) strip.outerHTML = html;
    } catch {
      // The server is gone or busy: the next try shows the truth again.
    }
  }
  setTimeout(tick, again);
}

setTimeout(tick, 1000);
