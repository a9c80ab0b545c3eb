---@meta neap.crypto
-- Made by `neap types` from the comments in neap's source: what is written here is lost.
-- luacheck: ignore

---neap.crypto: digests, text forms, RSA, AES-GCM, JWT and passwords on OpenSSL 3. Here: comparing, randomness, and the
---module itself.
local crypto = {}

---Compares without telling by its duration where two strings differ. Anything but two strings of one length is false.
---@param a any
---@param b any
---@return boolean
function crypto.equal(a, b) end

---Unpredictable bytes, good for keys.
---@param n integer bytes, 0 to 1048576
---@return string
function crypto.random(n) end

---A random UUID (RFC 9562, version 4) in lower case.
---@return string
function crypto.uuid() end

---Lower-case hexadecimal.
---@param s string
---@return string
function crypto.hex(s) end

---Bytes of a hexadecimal text in either case.
---@param s string
---@return string? # bytes, or nil, why, "format"
---@return string? why
---@return string? code
function crypto.unhex(s) end

---Base64 with padding, on one line.
---@param s string
---@return string
function crypto.base64(s) end

---Bytes of a base64 text. Padding is required, white space refused.
---@param s string
---@return string? # bytes, or nil, why, "format"
---@return string? why
---@return string? code
function crypto.unbase64(s) end

---Base64 in the URL alphabet, without padding.
---@param s string
---@return string
function crypto.base64url(s) end

---Bytes of a base64 text in the URL alphabet, with its padding or without.
---@param s string
---@return string? # bytes, or nil, why, "format"
---@return string? why
---@return string? code
function crypto.unbase64url(s) end

---Digests of a string. MD5 and SHA-1 are for vendors that ask for them; they resist nobody.
---@param s string
---@param form? "hex"|"raw"|"base64" "hex" (lower case) where absent
---@return string
function crypto.md5(s, form) end

---Digests of a string. MD5 and SHA-1 are for vendors that ask for them; they resist nobody.
---@param s string
---@param form? "hex"|"raw"|"base64" "hex" (lower case) where absent
---@return string
function crypto.sha1(s, form) end

---Digests of a string. MD5 and SHA-1 are for vendors that ask for them; they resist nobody.
---@param s string
---@param form? "hex"|"raw"|"base64" "hex" (lower case) where absent
---@return string
function crypto.sha256(s, form) end

---Digests of a string. MD5 and SHA-1 are for vendors that ask for them; they resist nobody.
---@param s string
---@param form? "hex"|"raw"|"base64" "hex" (lower case) where absent
---@return string
function crypto.sha512(s, form) end

---A keyed digest (RFC 2104). Compare with `equal`, not `==`.
---@param algorithm "md5"|"sha1"|"sha256"|"sha384"|"sha512"
---@param key string
---@param s string
---@param form? "hex"|"raw"|"base64"
---@return string
function crypto.hmac(algorithm, key, s, form) end

---Encrypts so that nobody without the key reads it or alters it unseen. The nonce is random: one key is good for 2^32
---boxes.
---@param key string 32 bytes
---@param text string
---@param aad? string bound to the box, not in it
---@return string # nonce, ciphertext, tag
function crypto.seal(key, text, aad) end

---Opens what seal made.
---@param key string 32 bytes
---@param box string
---@param aad? string as it was given to seal
---@return string? # text, or nil, why, "format" (too short) or "decrypt" (another key or aad, or altered)
---@return string? why
---@return string? code
function crypto.open(key, box, aad) end

---For a vendor's own format. Never use a nonce twice under one key; where the format is yours to choose, use seal.
---@param key string 32 bytes
---@param nonce string 12 bytes
---@param text string
---@param aad? string
---@return string ciphertext
---@return string # tag 16 bytes
function crypto.aes_gcm_encrypt(key, nonce, text, aad) end

---Undoes aes_gcm_encrypt. A tag of another length than 16 bytes is refused.
---@param key string
---@param nonce string
---@param ciphertext string
---@param tag string
---@param aad? string
---@return string? # text, or nil, why, "format" (tag) or "decrypt"
---@return string? why
---@return string? code
function crypto.aes_gcm_decrypt(key, nonce, ciphertext, tag, aad) end

crypto.rsa = {}

---Makes a key pair. Takes a tenth of a second for 2048 bits, seconds for 4096, in which the lane does nothing else; it
---counts as 5 million instructions for 2048 bits and as 40 million for 4096.
---@param bits? integer 2048 to 4096
---@return { private: string, public: string } # PKCS#8 PEM and SPKI PEM
function crypto.rsa.generate(bits) end

---Encrypts a short text for the owner of a private key.
---@param public string PEM (SPKI or PKCS#1), or its base64 alone
---@param s string
---@param options? { padding?: "pkcs1"|"oaep", hash?: "sha1"|"sha256", mgf1?: "sha1"|"sha256" } PKCS#1 v1.5 where absent; OAEP with SHA-1, mgf1 as hash
---@return string? # ciphertext as long as the key, or nil, why, "key" or "length" (at most the key's bytes less 11, OAEP: less 2 and two digests)
---@return string? why
---@return string? code
function crypto.rsa.encrypt(public, s, options) end

---Decrypts. Whatever is wrong with the ciphertext, the answer is the same; let nobody who sends ciphertexts tell success
---from failure, for PKCS#1 v1.5 gives the text away to who can ask often enough (Bleichenbacher). An OpenSSL of 3.2 or
---later answers bad padding with random bytes.
---@param private string PEM (PKCS#8 or PKCS#1), or its base64 alone
---@param s string
---@param options? { padding?: "pkcs1"|"oaep", hash?: "sha1"|"sha256", mgf1?: "sha1"|"sha256" } as for encrypt
---@return string? # text, or nil, why, "key" or "decrypt"
---@return string? why
---@return string? code
function crypto.rsa.decrypt(private, s, options) end

---Tells whether a ciphertext is one of this text, for a secret that a client sends encrypted. It says this and nothing
---else, in the same time whatever the ciphertext was decrypted to: padding that is wrong cannot be told from a text that
---is (as with decrypt it can, see there).
---@param private string as for decrypt
---@param ciphertext string
---@param text string
---@param options? { padding?: "pkcs1"|"oaep", hash?: "sha1"|"sha256", mgf1?: "sha1"|"sha256" } as for encrypt
---@return boolean? # or nil, why, "key" or "length" (no ciphertext of this key can hold so long a text)
---@return string? why
---@return string? code
function crypto.rsa.holds(private, ciphertext, text, options) end

---Signs.
---@param private string as for decrypt
---@param s string
---@param options? { hash?: string, padding?: "pkcs1"|"pss" } "sha256" and "pkcs1" where absent
---@return string? # signature, or nil, why, "key"
---@return string? why
---@return string? code
function crypto.rsa.sign(private, s, options) end

---Tells whether the owner of the private key signed s.
---@param public string as for encrypt
---@param s string
---@param signature string bytes
---@param options? { hash?: string, padding?: "pkcs1"|"pss" } as for sign
---@return boolean? # or nil, why, "key"
---@return string? why
---@return string? code
function crypto.rsa.verify(public, s, signature, options) end

---Makes the text to keep of a password. Takes 32 MB and a tenth of a second, in which the lane does other work; where a
---call may not wait, as in a rule or a coroutine of your own, it does nothing else. Counts as 5 million instructions.
---@param password string
---@return string
function crypto.password_hash(password) end

---Tells whether the password is the one that the stored text was made of. Takes as long as password_hash, in the same
---way.
---@param password string
---@param stored string
---@return boolean? # or nil, why, "format" where the stored text is none of scrypt's, or asks for more than 128 MB
---@return string? why
---@return string? code
function crypto.password_verify(password, stored) end

crypto.jwt = {}

---Makes a token.
---@param claims table|string a table, or the JSON of an object, kept byte for byte. Times (exp, nbf, iat) are in seconds since 1970, as RFC 7519 has it
---@param key string the shared secret of HS256; the RSA private key of RS256
---@param options { algorithm: "HS256"|"RS256", header?: table } further header fields, such as kid
---@return string? # token, or nil, why, "key"
---@return string? why
---@return string? code
function crypto.jwt.sign(claims, key, options) end

---Checks a token and gives its claims.
---@param token string
---@param key string the shared secret of HS256; the RSA public key of RS256
---@param options { algorithm: "HS256"|"RS256", now?: integer, leeway?: number, issuer?: string, audience?: string } now in ms, the clock where absent; leeway in seconds, 0 where absent
---@return table? # claims, or nil, why, code: "format", "algorithm" (not the one asked for), "signature", "time", "issuer", "audience", "key". A token that names an audience is refused unless options name it.
---@return string? why
---@return string? code
function crypto.jwt.verify(token, key, options) end

return crypto
