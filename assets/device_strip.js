// Keeps the device strip current: asks the server, draws in place, waits as long as the server says. A hidden page asks nothing.
// Runs inside gr.HTML's js_on_load, which gives: element, server.

async function tick() {
  if (!element.isConnected) return;
  let again = 5000;
  if (!document.hidden) {
    try {
      const { html, again_ms, busy } = await server.sample();
      again = again_ms;
      document.documentElement.dataset.busy = busy ? "yes" : "no"; // playground/ui/frames.py slows animation frames by it
      const strip = element.querySelector(".strip");
      if (strip && strip.outerHTML !== html) strip.outerHTML = html;
    } catch {
      // The server is gone or busy: the next try shows the truth again.
    }
  }
  setTimeout(tick, again);
}

setTimeout(tick, 1000);
