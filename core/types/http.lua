---@meta neap.http
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.http: HTTP out. http.get, post, put, patch, delete, head { url =, … }, or request { method =, … }; http.get
---"https://…" for short. A call looks as if it blocked, while the lane does other work. It returns res = { status,
---headers (names in lower case), body, url, json (decoded when asked for) }, or nil, "what: why", and a code: timeout,
---resolve, connect, tls, cut, too_large, redirect, near, bad_url, status, limit, other. Only hosts that the plugin's
---settings name can be reached. Options: url; query, headers, form (tables); body (a string) or json (a value); timeout
---(seconds or "10s", 30 s where absent); expect (a status or a list: any other is a failure); redirects (how many to
---follow, none where absent); answer_max (bytes or "16MiB"); basic = { user, password }; bearer; gzip = true (the body
---goes out gzipped). Mutual TLS: cert and key (the client's, as PEM texts; the key unencrypted, by itself or in cert),
---ca (PEM: who is trusted, and nobody else is). Such texts come from settings of the type secret, for which neap.lua
---says file "PATH".
local http = {}

---The answer to a request.
---@class neap.Response
---@field status integer
---@field url string of the last request, where redirects were followed
---@field headers table<string, string> names in lower case
---@field body string
---@field json? any the body, decoded; nil where it is not JSON

---A request that a plugin makes.
---@class neap.HttpOptions
---@field url string
---@field method? string of http.request
---@field query? table<string, any>
---@field headers? table<string, any>
---@field body? string
---@field json? any sent as JSON
---@field form? table<string, any> sent as a form
---@field timeout? string|number a duration; 30 s where absent
---@field expect? integer|integer[] statuses: any other is a failure
---@field redirects? integer how many to follow, none where absent
---@field answer_max? integer|string bytes, or "16MiB"
---@field basic? string[] user and password
---@field bearer? string
---@field gzip? boolean whether the body goes out gzipped
---@field cert? string the client's certificate, PEM
---@field key? string its key, PEM
---@field ca? string PEM: who is trusted, and nobody else is

---Asks, and waits for the answer.
---@param options neap.HttpOptions|string or the URL alone
---@return neap.Response? res
---@return string? why
---@return string? code
---@return neap.Response? answer
function http.get(options) end

---Asks, and waits for the answer.
---@param options neap.HttpOptions|string or the URL alone
---@return neap.Response? res
---@return string? why
---@return string? code
---@return neap.Response? answer
function http.post(options) end

---Asks, and waits for the answer.
---@param options neap.HttpOptions|string or the URL alone
---@return neap.Response? res
---@return string? why
---@return string? code
---@return neap.Response? answer
function http.put(options) end

---Asks, and waits for the answer.
---@param options neap.HttpOptions|string or the URL alone
---@return neap.Response? res
---@return string? why
---@return string? code
---@return neap.Response? answer
function http.patch(options) end

---Asks, and waits for the answer.
---@param options neap.HttpOptions|string or the URL alone
---@return neap.Response? res
---@return string? why
---@return string? code
---@return neap.Response? answer
function http.delete(options) end

---Asks, and waits for the answer.
---@param options neap.HttpOptions|string or the URL alone
---@return neap.Response? res
---@return string? why
---@return string? code
---@return neap.Response? answer
function http.head(options) end

---Asks, and waits for the answer.
---@param options neap.HttpOptions|string or the URL alone
---@return neap.Response? res
---@return string? why
---@return string? code
---@return neap.Response? answer
function http.request(options) end

return http
