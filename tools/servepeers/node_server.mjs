// ONNX Runtime for Node behind Node's http server, with sharp (libjpeg-turbo by libvips) for pictures.
//
//     node node_server.mjs BUNDLE PORT THREADS
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import ort from "onnxruntime-node";
import sharp from "sharp";

const [bundle, port, threads] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const signature = JSON.parse(readFileSync(join(bundle, "signature.json"), "utf8"));
const { width, height, means, stds, slots, background, select } = signature;
const session = await ort.InferenceSession.create(join(bundle, "model.onnx"), {
  intraOpNumThreads: threads, interOpNumThreads: 1, executionProviders: ["cpu"],
});
sharp.concurrency(1);

async function detect(body, confidence) {
  const picture = sharp(body);
  const size = await picture.metadata();
  const pixels = await picture.resize(width, height, { fit: "fill", kernel: "linear" }).removeAlpha().raw().toBuffer();
  const n = width * height;
  const input = new Float32Array(3 * n);
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < 3; c++) input[c * n + i] = (pixels[3 * i + c] / 255 - means[c]) / stds[c];
  }
  const out = await session.run({ [signature.input]: new ort.Tensor("float32", input, [1, 3, height, width]) });
  const boxes = out[signature.boxes].data, logits = out[signature.logits].data;
  const scored = [];
  for (let i = 0; i < logits.length; i++) {
    const slot = i % slots.length, score = 1 / (1 + Math.exp(-logits[i]));
    if (score >= confidence && slot !== background && slots[slot]) scored.push([score, i]);
  }
  scored.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  const found = scored.slice(0, select).map(([score, i]) => {
    const q = Math.floor(i / slots.length) * 4;
    const [cx, cy, w, h] = boxes.slice(q, q + 4);
    return { class: slots[i % slots.length], score, x: (cx - w / 2) * size.width, y: (cy - h / 2) * size.height,
      w: w * size.width, h: h * size.height };
  });
  return { width: size.width, height: size.height, boxes: found };
}

createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname === "/readyz") return response.end('{"ok":true}');
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    try {
      const answer = await detect(Buffer.concat(parts), Number(url.searchParams.get("confidence") ?? 0.4));
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify(answer));
    } catch (e) {
      response.statusCode = 400;
      response.end(JSON.stringify({ error: String(e) }));
    }
  });
}).listen(port, "127.0.0.1");
