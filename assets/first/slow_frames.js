// Slows animation frames while a run uses the CPU and nobody touches the page: Gradio 6 leaves a requestAnimationFrame loop running for
// good, and on a small machine that takes 5 to 9 % of a core from the model that is being measured. The device strip sets the mark that is
// looked at here (assets/device_strip.js).
(() => {
  const FRAME_MS = 250;
  const AWAKE_MS = 1000; // after a touch or a key the page draws at the screen's own rate for so long
  const frame = window.requestAnimationFrame.bind(window);
  const cancel = window.cancelAnimationFrame.bind(window);
  const waiting = new Map();
  let last = 0;
  let touched = -Infinity;
  const slow = () => document.documentElement.dataset.busy === "yes" && performance.now() - touched > AWAKE_MS;
  const draw = (id) => {
    const [timer, drawing] = waiting.get(id);
    clearTimeout(timer);
    waiting.delete(id);
    frame(drawing);
  };
  window.requestAnimationFrame = (drawing) => {
    if (!slow()) return frame(drawing);
    const id = --last; // the browser's own are positive
    waiting.set(id, [setTimeout(() => draw(id), FRAME_MS), drawing]);
    return id;
  };
  window.cancelAnimationFrame = (id) => {
    if (!waiting.has(id)) return cancel(id);
    clearTimeout(waiting.get(id)[0]);
    waiting.delete(id);
  };
  const wake = () => {
    touched = performance.now();
    if (waiting.size) [...waiting.keys()].forEach(draw);
  };
  const inputs = ["pointerdown", "pointermove", "touchmove", "keydown", "wheel"];
  inputs.forEach((input) => addEventListener(input, wake, { capture: true, passive: true }));
})();
