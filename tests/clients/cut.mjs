// A way to the server that breaks once, right after the first state of a job has come through.
import net from "node:net";

// `piece` takes what the server has sent so far and gives what goes through before the cut; undefined until then.
export async function breaking(server, piece) {
  const { hostname, port } = new URL(server);
  const connections = [];
  let broken = false;
  const listening = net.createServer((client) => {
    const upstream = net.connect(Number(port), hostname);
    let sent = Buffer.alloc(0);
    connections.push(client);
    client.pipe(upstream);
    upstream.on("data", (data) => {
      if (broken) return client.write(data);
      const before = sent.length;
      sent = Buffer.concat([sent, data]);
      const end = piece(sent);
      if (end === undefined) return client.write(data);
      broken = true;
      client.write(sent.subarray(before, end), () => client.destroy());
      upstream.destroy();
    });
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  });
  await new Promise((resolve) => listening.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${listening.address().port}/graphql`,
    connections,
    close: () => {
      listening.close();
      for (const client of connections) client.destroy();
    },
  };
}

// The end of the first event that has a state. (A body may end in the same piece: its own end is no event's.)
export function firstEvent(sent) {
  const text = sent.toString("latin1");
  const state = text.indexOf('"sequence"');
  const end = text.indexOf("\n\n", state);
  return state < 0 || end < 0 ? undefined : end + 2;
}

// The end of the second frame: the acknowledgement, then the first state.
export function secondFrame(sent) {
  let at = sent.indexOf("\r\n\r\n") + 4;
  if (at < 4) return undefined;
  for (let frame = 0; frame < 2; frame += 1) {
    if (sent.length < at + 4) return undefined;
    const short = sent[at + 1] & 127;
    const length = short < 126 ? 2 + short : 4 + sent.readUInt16BE(at + 2);
    at += length;
    if (sent.length < at) return undefined;
  }
  return at;
}
