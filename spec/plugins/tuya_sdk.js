// What spec/plugins/tuya_sdk_spec.lua has the vendor's own SDK do against neap: node tuya_sdk.js URL CLIENT_ID SECRET DEVICE_ID [v1]
// Prints one JSON object a step.
const { TuyaContext } = require('@tuya/tuya-connector-nodejs');

const [url, accessKey, secretKey, device, version] = process.argv.slice(2);
const say = (step, value) => console.log(JSON.stringify({ step, value }));

async function main() {
  const options = { baseUrl: url, accessKey, secretKey, version: version || 'v2' };
  const tuya = new TuyaContext(options);
  // Of the old version, the SDK leaves the query out: it has to stand in the path.
  const call = (method, path, { query, body } = {}) => version === 'v1' && query
    ? tuya.request({ method, path: `${path}?${new URLSearchParams(query)}`, body })
    : tuya.request({ method, path, query, body });

  say('token', await tuya.client.init());
  say('detail', await call('GET', `/v1.0/devices/${device}`));
  say('list', await call('GET', '/v1.0/devices', { query: { page_size: 5, page_no: 1 } }));
  const span = { type: '1,7', start_time: 0, end_time: Date.now(), size: 10, codes: 'cur_voltage,switch_1' };
  const logs = await call('GET', `/v1.0/devices/${device}/logs`, { query: { ...span } });
  say('logs', logs);
  say('more logs', await call('GET', `/v1.0/devices/${device}/logs`, { query: { ...span, start_row_key: logs.result.next_row_key } }));
  say('rename', await call('PUT', `/v1.0/devices/${device}`, { body: { name: '新 name & more' } }));
  say('renamed', await call('GET', `/v1.0/devices/${device}`));
  const user = await call('POST', `/v1.0/devices/${device}/user`, { body: { nick_name: '张三', sex: 1 } });
  say('user', user);
  say('users', await call('GET', `/v1.0/devices/${device}/users`));
  say('user removed', await call('DELETE', `/v1.0/devices/${device}/users/${user.result}`));

  // A token that is no longer good: the SDK refreshes it by itself.
  await tuya.client.store.setTokens({ ...tuya.client.store.tokens, access_token: '0'.repeat(32) });
  say('after an expired token', await call('GET', `/v1.0/devices/${device}`));
  const refresh = tuya.client.store.tokens.refresh_token;
  await tuya.client.store.setTokens({ ...tuya.client.store.tokens, access_token: '0'.repeat(32), refresh_token: '1'.repeat(32) });
  say('after both', await call('GET', `/v1.0/devices/${device}`));
  say('the pair is the same while it is valid', refresh === tuya.client.store.tokens.refresh_token);
  say('nothing there', await call('GET', '/v1.0/iot-03/devices/x'));

  const wrong = new TuyaContext({ ...options, secretKey: 'f'.repeat(32) });
  await wrong.client.init().then((value) => say('wrong secret', { let_in: value }), (error) => say('wrong secret', error.message));
}

main().catch((error) => {
  console.error(error.stack);
  process.exit(1);
});
