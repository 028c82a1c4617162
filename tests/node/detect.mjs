// Calls VadService.Detect knowing nothing but the server's own reflection.
// Usage: node detect.mjs TARGET CERTIFICATE_FILE TLS_NAME TOKEN AUDIO_PATH
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import { GrpcReflection } from "grpc-js-reflection-client";

const [target, certificate, tlsName, token, path] = process.argv.slice(2);
const credentials = grpc.credentials.createSsl(readFileSync(certificate));
const options = { "grpc.ssl_target_name_override": tlsName };
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${token}`);

const reflection = new GrpcReflection(target, credentials, options);
const services = await reflection.listServices("*", metadata);
const descriptor = await reflection.getDescriptorBySymbol("amela.vad.v1.VadService", metadata);
const { VadService } = descriptor.getPackageObject({ keepCase: true, defaults: true }).amela.vad.v1;

new VadService(target, credentials, options).Detect({ audio: { path } }, metadata, (error, response) => {
  console.log(JSON.stringify({ services, code: error?.code ?? 0, details: error?.details, response }));
  process.exit(0);
});
