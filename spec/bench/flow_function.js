// The function node: parse, check and rule. Output 1 goes to the file node, output 2 is the answer.
const raw = msg.payload.toString();
let b;
try { b = JSON.parse(raw); } catch (e) { msg.payload = { code: 1002, msg: "no JSON" }; return [null, msg]; }
const d = b.data;
const text = (v, max) => typeof v === "string" && v.length >= 1 && v.length <= max;
const integer = (v, min) => v === undefined || v === null || (Number.isInteger(Number(v)) && Number(v) >= min);
if (b.reservedCode !== "01" || !d || !text(d.testId, 128) || !text(d.deviceSn, 128) || !/^\s*\d+\.?\d*\s*$/.test(d.testResult) ||
    !integer(d.serialNo, 1) || !integer(d.increMinute, 0) || !integer(d.cgmDay, 0) || !/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(d.testTime)) {
  msg.payload = { code: 1003, msg: "a field is wrong" };
  return [null, msg];
}
const at = Date.parse(d.testTime.replace(" ", "T") + "+08:00");
const value = Number(d.testResult);
if (value < 3.9 && (d.status || "0") === "0") {
  const key = "low:" + d.deviceSn, last = context.get(key) || 0, now = Date.now();
  if (now - last >= 15 * 60 * 1000) {
    context.set(key, now);
    context.set("last", { title: "Low glucose", device: d.deviceSn, value: value, at: at });
  }
}
msg.payload = { code: 0, msg: "" };
return [{ payload: raw }, msg];
