// Runs in the head, before Gradio. While a timed pass needs the processor (data-quiet on the root element), animation frames come once a
// second: Gradio 6.31 leaves a frame loop of its loading screen running for good, which takes 5 % of a core.

(() => {
  const soon = window.requestAnimationFrame.bind(window);
  const quiet = () => document.documentElement.hasAttribute("data-quiet");
  window.requestAnimationFrame = (draw) => (quiet() ? setTimeout(() => soon(draw), 1000) : soon(draw));
})();
