// Runs the module: one machine, a tun device with an address, and a ping to it.
// Usage: node run.mjs no_system.wasm
import assert from "node:assert";
import { readFileSync } from "node:fs";

const module = new WebAssembly.Module(readFileSync(process.argv[2]));
const net = new WebAssembly.Instance(module, {}).exports;
const EAGAIN = -11;

const bytes = (len) => new Uint8Array(net.memory.buffer, net.buffer(), len);
const put = (data) => {
  bytes(data.length).set(data);
  return data.length;
};
const open = (path) => net.open(put(Buffer.from(path)));
const write = (file, data) => net.write(file, put(Buffer.from(data)));

/** The Internet checksum (RFC 1071). */
const checksum = (data) => {
  let sum = 0;
  for (let at = 0; at < data.length; at += 2) sum += (data[at] << 8) | data[at + 1];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
};

net.start(1n);
net.turn(0n);
const tun = open("tun/0");
const addr = open("netcfg/ifaces/tun0/addr/set");
assert(tun >= 0 && addr >= 0);
assert.equal(write(addr, "10.0.0.1/24\n"), 12);
assert.equal(net.read(tun, 2000), EAGAIN);

const [host, peer] = [[10, 0, 0, 1], [10, 0, 0, 2]];
const ping = Buffer.from([8, 0, 0, 0, 1, 2, 0, 1, ...Buffer.from("without a system")]);
ping.writeUInt16BE(checksum(ping), 2);
const header = Buffer.from([0x45, 0, 0, 20 + ping.length, 0, 0, 0, 0, 64, 1, 0, 0, ...peer, ...host]);
header.writeUInt16BE(checksum(header), 10);
const packet = Buffer.concat([header, ping]);
assert.equal(write(tun, packet), packet.length);
net.turn(1000n);

const reply = Buffer.from(bytes(net.read(tun, 2000)));
assert.deepEqual([...reply.subarray(12, 20)], [...host, ...peer]);
assert.equal(reply[20], 0, "an echo reply");
assert.deepEqual(reply.subarray(24), ping.subarray(4));
net.close(tun);
console.log("pinged a machine without a system");
