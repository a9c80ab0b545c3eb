// Node-RED's settings: its defaults, on loopback, without the editor, without asking anybody on the network for anything.
module.exports = {
  uiPort: process.env.BENCH_PORT, uiHost: "127.0.0.1", httpAdminRoot: false, userDir: process.env.BENCH_FOLDER, flowFile: "flow.json",
  credentialSecret: false, telemetry: { enabled: false, updateNotification: false },
  externalModules: { autoInstall: false, palette: { allowInstall: false }, modules: { allowInstall: false } },
  editorTheme: { projects: { enabled: false } }, logging: { console: { level: "warn", metrics: false, audit: false } },
};
