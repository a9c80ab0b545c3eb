// A receiver of webhooks that checks each by the standardwebhooks library, and by node's TLS who sends it.
// node webhook_receiver.js SECRET [SERVER_CERTIFICATE SERVER_KEY CLIENT_AUTHORITY]; prints its port, then a line of JSON for each request.
const fs = require("fs");
const { Webhook } = require("standardwebhooks");

const [secret, cert, key, authority] = process.argv.slice(2);
const checker = new Webhook(secret);

function answer(req, res) {
  const pieces = [];
  req.on("data", (piece) => pieces.push(piece));
  req.on("end", () => {
    const body = Buffer.concat(pieces);
    const seen = { method: req.method, path: req.url, headers: req.headers, body: body.toString() };
    if (authority) seen.client = req.socket.getPeerCertificate().subject;
    const plain = req.headers["content-encoding"] === "gzip" ? require("zlib").gunzipSync(body) : body;
    seen.text = plain.toString();
    try {
      checker.verify(seen.text, req.headers);
      seen.verified = true;
    } catch (wrong) {
      seen.verified = false;
      seen.why = String(wrong);
    }
    console.log(JSON.stringify(seen));
    res.writeHead(204);
    res.end();
  });
}

const server = authority
  ? require("https").createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key), ca: fs.readFileSync(authority),
      requestCert: true, rejectUnauthorized: true }, answer)
  : require("http").createServer(answer);
server.on("tlsClientError", (wrong) => console.log(JSON.stringify({ refused: wrong.code || String(wrong) })));
server.listen(0, "127.0.0.1", () => console.log("port " + server.address().port));
