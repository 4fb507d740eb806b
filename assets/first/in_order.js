// Events are asked and answered in the order in which a person set them off: each waits until the server has taken those before. Gradio 6.31
// sends every event as a request of its own and takes the event's answer once the reply to that request was read. Such replies can overtake
// each other, and so could answers: a whole list then stood over the one of the filter that was typed after it.
(() => {
  const LONGEST_MS = 5000; // a reply that never comes must not hold up all that follow
  const send = window.fetch.bind(window);
  const after = (ms) => new Promise((done) => setTimeout(done, ms));
  let before = Promise.resolve();
  window.fetch = (input, init) => {
    if (!String(input?.url ?? input).includes("/queue/join")) return send(input, init);
    const touched = navigator.userActivation?.hasBeenActive ?? true; // what opens the page is sooner there all at once
    const reply = touched ? before.then(() => send(input, init)) : send(input, init);
    const read = reply.then((answer) => answer.clone().text()).catch(() => {}).then(() => after(0)); // the page's own reading of it comes first
    before = Promise.race([Promise.all([before, read]), before.then(() => after(LONGEST_MS))]);
    return reply;
  };
})();
