// Events are asked and answered in the order in which a person set them off, and none is lost. Gradio 6.31 leaves that to chance twice:
//
// It sends every event as a request of its own and takes the event's answer once the reply to that request was read. Replies can overtake
// each other, and so could answers: a whole list then stood over the one of the filter that was typed after it. Here each request waits until
// the reply to the one before was read.
//
// All answers come in one stream, which the server closes as soon as it knows of no other event. An event that it learned of just then was
// left without a stream where its reply was read before the word that closes it, and waited for ever. Here that word is passed on only while
// no event waits, and no reply until it was read; else the stream goes on with a new connection. It is passed on after the end of the
// connection, since the page cuts off what it closes, and a server that notices ends all events of that page.
(() => {
  // A reply that never comes must not hold up for ever all that follow; one that is only late, on a slow machine or line, must not be overtaken.
  const LONGEST_MS = 60000;
  const CLOSES = /^data: \{"msg":"close_stream"/;
  const ANSWERED = /^data: \{"msg":"process_completed","event_id":"(\w+)"/;
  const send = window.fetch.bind(window);
  const after = (ms) => new Promise((done) => setTimeout(done, ms));
  const waiting = new Set(); // ids of the events that were taken and are not answered
  const early = new Set(); // ids of those whose answer came before the reply that tells their id
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
      if (id && !early.delete(id)) waiting.add(id);
      await after(0); // the page's own reading of it comes first
    });
    return reply;
  };

  // The page ends the request when it has read the word; no reply may reach it between the two.
  const close = async (word, writer, signal) => {
    if (waiting.size) return false;
    const read = new Promise((done) => (signal.aborted ? done() : signal.addEventListener("abort", done)));
    closed = Promise.race([read, after(LONGEST_MS)]);
    writer.write(`${word}\n\n`).catch(() => {});
    return true;
  };

  // True when the stream is over, false where it has to go on with another connection.
  const pass = async (answer, writer, signal) => {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "", last = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return !last || next(() => close(last, writer, signal));
      const words = value.includes("\n") ? (rest + value).split("\n\n") : [rest + value]; // a long one comes in many parts
      rest = words.pop();
      for (const word of words) {
        const answered = ANSWERED.exec(word)?.[1];
        if (answered && !waiting.delete(answered)) early.add(answered);
        if (CLOSES.test(word)) last = word;
        else await writer.write(`${word}\n\n`);
      }
    }
  };

  const listen = async (request) => {
    const first = await send(request.clone());
    if (!first.ok || !first.body) return first;
    const { readable, writable } = new TextEncoderStream();
    const writer = writable.getWriter();
    const go = async () => {
      for (let answer = first; !(await pass(answer, writer, request.signal)); ) answer = await send(request.clone());
      writer.close().catch(() => {});
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
