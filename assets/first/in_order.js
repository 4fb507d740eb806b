// Events are asked and answered in the order in which a person set them off, and none is lost. Gradio 6.31 leaves that to chance twice:
//
// It sends every event as a request of its own and takes the event's answer once the reply to that request was read. Replies can overtake
// each other, and so could answers: a whole list then stood over the one of the filter that was typed after it. Here each request waits until
// the reply to the one before was read.
//
// All answers come in one stream, which the server closes as soon as it knows of no other event. An event that it learns of just then was
// left without a stream where its reply was read before the word that closes it, and it waited for ever. Here that word is passed on only
// while no event waits; else the stream goes on with a new connection.
(() => {
  const LONGEST_MS = 5000; // a reply that never comes must not hold up all that follow
  const READ_MS = 20; // for the page's own reading of the word that closes a stream
  const CLOSES = /^data: \{"msg":"close_stream"/;
  const ANSWERED = /^data: \{"msg":"process_completed","event_id":"(\w+)"/;
  const send = window.fetch.bind(window);
  const after = (ms) => new Promise((done) => setTimeout(done, ms));
  const waiting = new Set(); // ids of the events that were taken and are not answered
  let before = Promise.resolve();
  let closed = Promise.resolve();
  const next = (step) => {
    const begun = before.then(step);
    before = Promise.race([begun.catch(() => {}), before.then(() => after(LONGEST_MS))]);
    return begun;
  };

  const ask = async (input, init) => {
    const reply = before.then(() => send(input, init)).then((answer) => closed.then(() => answer));
    next(async () => {
      const { event_id: id } = await (await reply).clone().json();
      if (id) waiting.add(id);
      await after(0); // the page's own reading of it comes first
    });
    return reply;
  };

  const close = async (word, writer) => {
    if (waiting.size) return false;
    await writer.write(`${word}\n\n`);
    closed = after(READ_MS);
    return true;
  };

  // True when the stream is over, false where it has to go on with another connection.
  const pass = async (answer, writer) => {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return true;
      const words = (rest + value).split("\n\n");
      rest = words.pop();
      for (const word of words) {
        waiting.delete(ANSWERED.exec(word)?.[1]);
        if (CLOSES.test(word)) return next(() => close(word, writer));
        await writer.write(`${word}\n\n`);
      }
    }
  };

  const listen = async (request) => {
    const first = await send(request.clone());
    if (!first.ok || !first.body) return first;
    const { readable, writable } = new TextEncoderStream();
    const writer = writable.getWriter();
    const go = async () => {
      for (let answer = first; !(await pass(answer, writer)); ) answer = await send(request.clone());
      await writer.close();
    };
    go().catch((problem) => writer.abort(problem).catch(() => {}));
    return new Response(readable, { status: first.status, headers: first.headers });
  };

  window.fetch = (input, init) => {
    const url = String(input?.url ?? input);
    if (url.includes("/queue/join")) return ask(input, init);
    if (url.includes("/queue/data")) return listen(new Request(input, init));
    return send(input, init);
  };
})();
