-- neap.crypto against published vectors, the openssl command, and wrong input.
local crypto = require "neap.crypto"

local function refuses(code, ...)
  local value, why, got = ...
  assert.is_nil(value)
  assert.is_string(why)
  assert.matches("^[%w_]+: .", why)
  assert.equal(code, got)
  return why
end

local function misuse(text, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.truthy(tostring(err):find(text, 1, true), ("%q is not in %q"):format(text, tostring(err)))
  return err
end

local function unhex(s) return assert(crypto.unhex((s:gsub("%s", "")))) end

describe("digests", function()
  it("answers RFC 1321's MD5 suite", function()
    assert.equal("d41d8cd98f00b204e9800998ecf8427e", crypto.md5 "")
    assert.equal("900150983cd24fb0d6963f7d28e17f72", crypto.md5 "abc")
    assert.equal("f96b697d7cb7938d525a2f31aaf161d0", crypto.md5 "message digest")
    assert.equal("57edf4a22be3c955ac49da2e2107b67a", crypto.md5(("1234567890"):rep(8)))
  end)

  it("answers RFC 3174's SHA-1 suite", function()
    assert.equal("a9993e364706816aba3e25717850c26c9cd0d89d", crypto.sha1 "abc")
    assert.equal("84983e441c3bd26ebaae4aa1f95129e5e54670f1", crypto.sha1 "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
    assert.equal("34aa973cd4c4daa4f61eeb2bdbad27316534016f", crypto.sha1(("a"):rep(1000000)))
    assert.equal("dea356a2cddd90c7a7ecedc5ebb563934f460452", crypto.sha1(("01234567"):rep(80)))
  end)

  it("answers RFC 6234's SHA-2 suite", function()
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", crypto.sha256 "")
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", crypto.sha256 "abc")
    assert.equal("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      crypto.sha256 "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
    assert.equal("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a" ..
      "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f", crypto.sha512 "abc")
  end)

  it("takes bytes of any value and gives three forms", function()
    assert.equal(32, #crypto.sha256("a\0b", "raw"))
    assert.equal(crypto.sha256 "a\0b", crypto.hex(crypto.sha256("a\0b", "raw")))
    assert.equal(crypto.sha256("x", "hex"), crypto.sha256 "x")
    assert.equal("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", crypto.sha256("abc", "base64"))
  end)

  it("raises on misuse", function()
    misuse("string expected", crypto.sha256)
    misuse("string expected", crypto.sha256, {})
    misuse("invalid option", crypto.sha256, "x", "HEX")
  end)
end)

describe("hmac", function()
  local long_key = ("\xaa"):rep(131)
  local cases = { -- RFC 4231: key, data, SHA-256, SHA-512
    { ("\x0b"):rep(20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
      "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f" ..
        "4e4be9d914eeb61f1702e696c203a126854" },
    { "Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
      "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e" ..
        "6fdcaeab1a34d4a6b4b636e070a38bce737" },
    { ("\xaa"):rep(20), ("\xdd"):rep(50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
      "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c" ..
        "807b946a337bee8942674278859e13292fb" },
    { long_key, "Test Using Larger Than Block-Size Key - Hash Key First",
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
      "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1" ..
        "e5295e64f73f63f0aec8b915a985d786598" },
    { long_key, "This is a test using a larger than block-size key and a larger than block-size data. " ..
      "The key needs to be hashed before being used by the HMAC algorithm.",
      "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
      "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b10d5eeb55c3e4d" ..
        "e15134676fb6de0446065c97440fa8c6a58" },
  }
  it("answers RFC 4231", function()
    for _, c in ipairs(cases) do
      assert.equal(c[3], crypto.hmac("sha256", c[1], c[2]))
      assert.equal(c[4], crypto.hmac("sha512", c[1], c[2]))
    end
    assert.equal("af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
      crypto.hmac("sha384", "Jefe", "what do ya want for nothing?"))
  end)

  it("answers RFC 2202 for MD5 and SHA-1", function()
    assert.equal("750c783e6ab0b503eaa86e310a5db738", crypto.hmac("md5", "Jefe", "what do ya want for nothing?"))
    assert.equal("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79", crypto.hmac("sha1", "Jefe", "what do ya want for nothing?"))
  end)

  it("agrees with OpenSSL's own HMAC at every edge of a block", function()
    for _, n in ipairs { 1, 63, 64, 65, 127, 128, 129, 200 } do
      for _, name in ipairs { "sha256", "sha512" } do
        local key = ("k"):rep(n)
        local p = io.popen(("printf '%%s' message | openssl dgst -%s -mac HMAC -macopt key:%s"):format(name, key))
        assert.equal(p:read("a"):match("%x+%s*$"):match("%x+"), crypto.hmac(name, key, "message"))
        p:close()
      end
    end
  end)

  it("signs a partner's request", function()
    assert.equal("7f3ee189ec490bc4c8061c68cdbc0444303569b8afc810e12ae4f9eb86ab1584", crypto.hmac("sha256", "test_secret",
      "GET/partner/v1/user/tokenX-App-Idapp_123X-Nonceabcd1234X-Timestamp1700000000000open_iduser_xxx"))
  end)

  it("signs as Tuya's documentation does", function()
    local text = "1KAD46OrT9HafiKdsXeg" .. "1588925778000" .. "5138cc3a9033d69856923fd07b491173" .. "GET\n" .. crypto.sha256 "" ..
      "\narea_id:29a33e8796834b1efa6\ncall_id:8afdb70ab2ed11eb85290242ac130003\n\n/v1.0/token?grant_type=1"
    assert.equal("9E48A3E93B302EEECC803C7241985D0A34EB944F40FB573C7B5C2A82158AF13E",
      crypto.hmac("sha256", "4OHBOnWOqaEC1mWXOpVL3yV50s0qGSRC", text):upper())
  end)

  it("gives raw bytes and base64", function()
    local hex = crypto.hmac("sha256", "k", "v")
    assert.equal(hex, crypto.hex(crypto.hmac("sha256", "k", "v", "raw")))
    assert.equal(hex, crypto.hex(crypto.unbase64(crypto.hmac("sha256", "k", "v", "base64"))))
  end)

  it("raises on misuse", function()
    misuse('unknown algorithm "sha257"', crypto.hmac, "sha257", "k", "v")
    misuse("string expected, got nil", crypto.hmac, "sha256", nil, "v")
    misuse("string expected", crypto.hmac, "sha256", "k")
  end)
end)

describe("equal", function()
  it("is true for the same bytes alone", function()
    assert.is_true(crypto.equal("", ""))
    assert.is_true(crypto.equal("a\0b", "a\0b"))
    assert.is_false(crypto.equal("a\0b", "a\0c"))
    assert.is_false(crypto.equal("abc", "abd"))
    assert.is_false(crypto.equal("abc", "ab"))
    assert.is_false(crypto.equal("ab", "abc"))
  end)
  it("is false for what is no string", function()
    assert.is_false(crypto.equal(nil, nil))
    assert.is_false(crypto.equal("a", nil))
    assert.is_false(crypto.equal(1, 1))
    assert.is_false(crypto.equal("1", 1))
    assert.is_false(crypto.equal())
  end)
end)

describe("random and uuid", function()
  it("gives as many bytes as asked for, others each time", function()
    assert.equal("", crypto.random(0))
    assert.equal(1, #crypto.random(1))
    assert.equal(5000, #crypto.random(5000))
    assert.not_equal(crypto.random(16), crypto.random(16))
    misuse("0 to 1048576", crypto.random, -1)
    misuse("0 to 1048576", crypto.random, 1048577)
    misuse("number expected", crypto.random)
  end)
  it("makes UUIDs of version 4", function()
    local seen = {}
    for _ = 1, 100 do
      local id = crypto.uuid()
      assert.matches("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$", id)
      assert.equal(id, id:lower())
      assert.is_nil(seen[id])
      seen[id] = true
    end
  end)
end)

describe("hex and base64", function()
  local vectors = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy" }

  it("answers RFC 4648's vectors", function()
    for text, encoded in pairs(vectors) do
      local bare = encoded:gsub("=", "")
      assert.equal(encoded, crypto.base64(text))
      assert.equal(text, crypto.unbase64(encoded))
      assert.equal(bare, crypto.base64url(text))
      assert.equal(text, crypto.unbase64url(bare))
      assert.equal(text, crypto.unbase64url(encoded))
    end
    assert.equal("666f6f626172", crypto.hex "foobar")
    assert.equal("foobar", crypto.unhex "666F6f626172")
    assert.equal("", crypto.unhex "")
  end)

  it("differs in two characters for URLs", function()
    assert.equal("++//", crypto.base64 "\xfb\xef\xff")
    assert.equal("--__", crypto.base64url "\xfb\xef\xff")
    refuses("format", crypto.unbase64 "--__")
    refuses("format", crypto.unbase64url "++//")
  end)

  it("brings back every length and byte", function()
    for n = 0, 70 do
      local s = crypto.random(n)
      assert.equal(s, crypto.unhex(crypto.hex(s)))
      assert.equal(s, crypto.unbase64(crypto.base64(s)))
      assert.equal(s, crypto.unbase64url(crypto.base64url(s)))
    end
    local long = ("\0\1\254\255"):rep(30000)
    assert.equal(long, crypto.unbase64(crypto.base64(long)))
  end)

  it("refuses what is not base64", function()
    for _, s in ipairs { "Zg", "Zg=", "Zm8", "Z", "Zg==\n", " Zg==", "Zm9v Zm9v", "Zm9v\nZm9v", "=", "==", "===", "====", "Z===",
      "Zg==Zg==", "Z=g=", "Zm9v====",
      "Zm9*", "Zm\0v", "Zh==", "Zm9=" } do
      refuses("format", crypto.unbase64(s))
    end
    for _, s in ipairs { "Z", "Zg=", "Zm8==", "Zm9v=", "Zh", "Zm9", "Zg==Zg", "Zm 8", "====", "=" } do
      refuses("format", crypto.unbase64url(s))
    end
  end)

  it("refuses what is not hexadecimal", function()
    for _, s in ipairs { "0", "0g", "g0", "0x00", "0 00", "ab\0c", "@@", "``" } do refuses("format", crypto.unhex(s)) end
  end)
end)

describe("AES-256-GCM", function()
  local key16 = unhex "feffe9928665731c6d6a8f9467308308 feffe9928665731c6d6a8f9467308308"
  local nonce16 = unhex "cafebabefacedbaddecaf888"
  local text15 = unhex [[d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255]]
  local aad16 = unhex "feedfacedeadbeeffeedfacedeadbeefabaddad2"
  local cases = { -- the GCM submission to NIST, cases 13 to 16: key, nonce, text, aad, ciphertext, tag
    { ("\0"):rep(32), ("\0"):rep(12), "", nil, "", "530f8afbc74536b9a963b4f1c4cb738b" },
    { ("\0"):rep(32), ("\0"):rep(12), ("\0"):rep(16), nil, "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919" },
    { key16, nonce16, text15, nil, [[522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
      8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad]], "b094dac5d93471bdec1a502270e3cc6c" },
    { key16, nonce16, text15:sub(1, 60), aad16, [[522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
      8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662]], "76fc6ece0f4e1768cddf8853bb2d551b" },
  }

  it("answers NIST's vectors", function()
    for _, c in ipairs(cases) do
      local ciphertext, tag = crypto.aes_gcm_encrypt(c[1], c[2], c[3], c[4])
      assert.equal(c[5]:gsub("%s", ""), crypto.hex(ciphertext))
      assert.equal(c[6], crypto.hex(tag))
      assert.equal(c[3], crypto.aes_gcm_decrypt(c[1], c[2], ciphertext, tag, c[4]))
      assert.equal(c[3], crypto.open(c[1], c[2] .. ciphertext .. tag, c[4]))
    end
  end)

  it("seals and opens", function()
    local key = crypto.random(32)
    for n = 0, 40 do
      local text = crypto.random(n)
      local box = crypto.seal(key, text, "row 7")
      assert.equal(n + 28, #box)
      assert.equal(text, crypto.open(key, box, "row 7"))
    end
    assert.equal("x", crypto.open(key, crypto.seal(key, "x")))
    assert.equal("x", crypto.open(key, crypto.seal(key, "x"), ""))
    assert.not_equal(crypto.seal(key, "x"), crypto.seal(key, "x"))
    local long = ("reading "):rep(20000)
    assert.equal(long, crypto.open(key, crypto.seal(key, long)))
  end)

  it("opens nothing that was altered", function()
    local key = crypto.random(32)
    local box = crypto.seal(key, "glucose 3.1", "bed 4")
    for i = 1, #box do
      local altered = box:sub(1, i - 1) .. string.char(box:byte(i) ~ 1) .. box:sub(i + 1)
      refuses("decrypt", crypto.open(key, altered, "bed 4"))
    end
    refuses("decrypt", crypto.open(key, box, "bed 5"))
    refuses("decrypt", crypto.open(key, box))
    refuses("decrypt", crypto.open(crypto.random(32), box, "bed 4"))
    refuses("decrypt", crypto.open(key, box:sub(1, -2), "bed 4"))
    refuses("format", crypto.open(key, box:sub(1, 27)))
    refuses("format", crypto.open(key, ""))
  end)

  it("refuses a tag cut short, which would be easy to guess", function()
    local ciphertext, tag = crypto.aes_gcm_encrypt(key16, nonce16, "text")
    for _, n in ipairs { 0, 1, 4, 12, 15 } do
      refuses("format", crypto.aes_gcm_decrypt(key16, nonce16, ciphertext, tag:sub(1, n)))
    end
    refuses("format", crypto.aes_gcm_decrypt(key16, nonce16, ciphertext, tag .. "\0"))
    refuses("decrypt", crypto.aes_gcm_decrypt(key16, nonce16, ciphertext, ("\0"):rep(16)))
  end)

  it("raises on keys and nonces of another length, without quoting them", function()
    local err = misuse("32 bytes", crypto.seal, "hunter2", "x")
    assert.is_nil(err:find("hunter2", 1, true))
    misuse("32 bytes", crypto.open, ("k"):rep(16), "x")
    misuse("12 bytes", crypto.aes_gcm_encrypt, key16, "nonce", "x")
    misuse("12 bytes", crypto.aes_gcm_decrypt, key16, ("n"):rep(16), "x", ("t"):rep(16))
    misuse("string expected", crypto.seal, key16)
  end)
end)

describe("passwords", function()
  it("are verified by what was kept of them", function()
    local stored = crypto.password_hash "correct horse"
    assert.matches("^%$scrypt%$ln=15,r=8,p=1%$[%w+/]+%$[%w+/]+$", stored)
    assert.is_true(crypto.password_verify("correct horse", stored))
    assert.is_false(crypto.password_verify("correct horsf", stored))
    assert.is_false(crypto.password_verify("", stored))
    assert.not_equal(stored, crypto.password_hash "correct horse")
  end)

  it("answer RFC 7914's scrypt vectors", function()
    local function bare(s) return (crypto.base64(s):gsub("=", "")) end
    local hash = unhex [[7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2
      d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887]]
    local stored = "$scrypt$ln=14,r=8,p=1$" .. bare "SodiumChloride" .. "$" .. bare(hash)
    assert.is_true(crypto.password_verify("pleaseletmein", stored))
    assert.is_false(crypto.password_verify("pleaseletmeout", stored))
  end)

  it("are refused where the stored text is no such thing, or costs too much", function()
    local salt, hash = "AAAAAAAAAAAAAAAAAAAAAA", ("A"):rep(43)
    local both = salt .. "$" .. hash
    for _, s in ipairs { "", "secret", "$scrypt$", "$2b$12$abcdefghijklmnopqrstuv" } do
      refuses("format", crypto.password_verify("secret", s))
    end
    for _, s in ipairs { "$", salt, salt .. "$", salt .. "$AAAA", both .. "=", both .. "$", both .. "\0", "AAAA$" .. hash, salt ..
      "$" .. ("A"):rep(200) } do
      refuses("format", crypto.password_verify("secret", "$scrypt$ln=15,r=8,p=1$" .. s))
    end
    for _, s in ipairs { "ln=30,r=8,p=1", "ln=18,r=1,p=1", "ln=1,r=8,p=1", "ln=17,r=16,p=1", "ln=15,r=0,p=1", "ln=15,r=8,p=99",
      "ln=-1,r=8,p=1" } do
      refuses("format", crypto.password_verify("secret", "$scrypt$" .. s .. "$" .. both))
    end
    misuse("string expected", crypto.password_verify, "secret")
  end)
end)

describe("rsa", function()
  local rsa = crypto.rsa
  local pair, other = rsa.generate(), rsa.generate(2048)
  local dir

  -- Runs openssl in dir with files written there first; gives what it wrote into "out" or on its standard output.
  local function openssl(arguments, files)
    for name, text in pairs(files or {}) do
      local f = assert(io.open(dir .. "/" .. name, "wb"))
      f:write(text)
      f:close()
    end
    os.remove(dir .. "/out")
    local p = io.popen(("cd %s && openssl %s 2>&1"):format(dir, arguments))
    local said = p:read "a"
    p:close()
    local f = io.open(dir .. "/out", "rb")
    if not f then return said end
    local text = f:read "a"
    f:close()
    return text
  end

  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -m 700 " .. dir))
  end)
  teardown(function() os.execute("rm -rf " .. dir) end)

  local function body(pem) return (pem:gsub("%-%-%-%-%-[^\n]*%-%-%-%-%-", ""):gsub("%s", "")) end

  it("makes pairs in PEM", function()
    assert.matches("^%-%-%-%-%-BEGIN PRIVATE KEY%-%-%-%-%-\n.*\n%-%-%-%-%-END PRIVATE KEY%-%-%-%-%-\n$", pair.private)
    assert.matches("^%-%-%-%-%-BEGIN PUBLIC KEY%-%-%-%-%-\n.*\n%-%-%-%-%-END PUBLIC KEY%-%-%-%-%-\n$", pair.public)
    assert.not_equal(pair.private, other.private)
    assert.equal(pair.public, openssl("pkey -in key -pubout", { key = pair.private }))
    misuse("2048 to 4096", rsa.generate, 1024)
    misuse("2048 to 4096", rsa.generate, 16384)
  end)

  local schemes = {
    { nil, "rsa_padding_mode:pkcs1" },
    { { padding = "pkcs1" }, "rsa_padding_mode:pkcs1" },
    { { padding = "oaep" }, "rsa_padding_mode:oaep" },
    { { padding = "oaep", hash = "sha1" }, "rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha1 -pkeyopt rsa_mgf1_md:sha1" },
    { { padding = "oaep", hash = "sha256" }, "rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256" },
    { { padding = "oaep", hash = "sha256", mgf1 = "sha1" },
      "rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha1" },
  }

  it("encrypts for the openssl command, and decrypts what it encrypted", function()
    for _, s in ipairs(schemes) do
      local box = assert(rsa.encrypt(pair.public, "token\0of a gauge", s[1]))
      assert.equal(256, #box)
      assert.equal("token\0of a gauge", rsa.decrypt(pair.private, box, s[1]))
      assert.equal("token\0of a gauge", openssl("pkeyutl -decrypt -inkey key -in box -out out -pkeyopt " .. s[2], {
        key = pair.private, box = box }))
      local theirs = openssl("pkeyutl -encrypt -pubin -inkey key -in text -out out -pkeyopt " .. s[2], { key = pair.public,
        text = "from there" })
      assert.equal("from there", rsa.decrypt(pair.private, theirs, s[1]))
    end
    assert.equal("", rsa.decrypt(pair.private, rsa.encrypt(pair.public, "")))
  end)

  it("takes texts up to what the padding leaves", function()
    assert.truthy(rsa.encrypt(pair.public, ("x"):rep(245)))
    refuses("length", rsa.encrypt(pair.public, ("x"):rep(246)))
    assert.truthy(rsa.encrypt(pair.public, ("x"):rep(214), { padding = "oaep" }))
    refuses("length", rsa.encrypt(pair.public, ("x"):rep(215), { padding = "oaep" }))
    assert.truthy(rsa.encrypt(pair.public, ("x"):rep(190), { padding = "oaep", hash = "sha256" }))
    refuses("length", rsa.encrypt(pair.public, ("x"):rep(191), { padding = "oaep", hash = "sha256" }))
  end)

  it("says the same of every ciphertext that does not decrypt", function()
    local box = rsa.encrypt(pair.public, "text", { padding = "oaep" })
    local function fails(...)
      local got = table.pack(...)
      assert.equal(3, got.n)
      assert.is_nil(got[1])
      assert.equal("decrypt: failed", got[2])
      assert.equal("decrypt", got[3])
    end
    local oaep = { padding = "oaep" }
    fails(rsa.decrypt(other.private, box, oaep))
    fails(rsa.decrypt(pair.private, box:sub(1, -2) .. string.char(box:byte(-1) ~ 1), oaep))
    fails(rsa.decrypt(pair.private, box, { padding = "oaep", hash = "sha256" }))
    for _, options in ipairs { {}, oaep } do
      fails(rsa.decrypt(pair.private, "", options))
      fails(rsa.decrypt(pair.private, "short", options))
      fails(rsa.decrypt(pair.private, box .. "x", options))
      fails(rsa.decrypt(pair.private, ("\xff"):rep(256), options))
    end
  end)

  it("tells nobody of a wrong PKCS#1 padding", function()
    local box = rsa.encrypt(pair.public, "text")
    for i = 1, 20 do -- an OpenSSL that rejects implicitly gives random bytes instead
      local altered = box:sub(1, 100 + i - 1) .. string.char(box:byte(100 + i) ~ 1) .. box:sub(100 + i + 1)
      local text, why, code = rsa.decrypt(pair.private, altered)
      assert.not_equal("text", text)
      if text == nil then
        assert.equal("decrypt: failed", why)
        assert.equal("decrypt", code)
      end
    end
  end)

  it("tells whether a ciphertext holds a text, and nothing else of it", function()
    for _, s in ipairs(schemes) do
      local box = assert(rsa.encrypt(pair.public, "a key\0of a client", s[1]))
      assert.is_true(rsa.holds(pair.private, box, "a key\0of a client", s[1]))
      for _, text in ipairs { "a key\0of a clienT", "a key\0of a clien", "a key\0of a client ", "", "\0of a client" } do
        assert.is_false(rsa.holds(pair.private, box, text, s[1]))
      end
      assert.is_false(rsa.holds(other.private, box, "a key\0of a client", s[1]))
      for _, wrong in ipairs { "", "short", box .. "x", box:sub(2), ("\xff"):rep(256), ("\0"):rep(256) } do
        assert.is_false(rsa.holds(pair.private, wrong, "a key\0of a client", s[1]))
      end
    end
    assert.is_false(rsa.holds(pair.private, rsa.encrypt(pair.public, "text"), "text", { padding = "oaep" }))
    assert.is_false(rsa.holds(pair.private, rsa.encrypt(pair.public, "text", { padding = "oaep" }), "text"))
    assert.is_true(rsa.holds(pair.private, rsa.encrypt(pair.public, ("x"):rep(245)), ("x"):rep(245)))
    refuses("length", rsa.holds(pair.private, ("x"):rep(256), ("x"):rep(246)))
    refuses("length", rsa.holds(pair.private, ("x"):rep(256), ("x"):rep(215), { padding = "oaep" }))
    refuses("key", rsa.holds(pair.public, ("x"):rep(256), "text"))
  end)

  it("holds a text only where its PKCS#1 padding is whole", function()
    local function boxed(em)
      assert.equal(256, #em)
      return openssl("pkeyutl -encrypt -pubin -inkey key -in em -out out -pkeyopt rsa_padding_mode:none", { key = pair.public, em = em })
    end
    local ps = ("p"):rep(256 - 3 - 4)
    assert.is_true(rsa.holds(pair.private, boxed("\0\2" .. ps .. "\0text"), "text"))
    for _, em in ipairs { "\0\1" .. ps .. "\0text", "\0\0" .. ps .. "\0text", "\1\2" .. ps .. "\0text", "\0\2" .. ps .. "\1text",
      "\0\2" .. ps:sub(1, -2) .. "\0\0text", "\0\2\0" .. ps:sub(2) .. "\0text", "\0\2" .. ps:sub(1, 100) .. "\0" .. ps:sub(102) .. "\0text" } do
      assert.is_false(rsa.holds(pair.private, boxed(em), "text"))
    end
  end)

  it("signs for the openssl command, and verifies what it signed", function()
    for _, s in ipairs {
      { nil, "-sha256" }, { { hash = "sha512" }, "-sha512" }, { { hash = "sha1", padding = "pkcs1" }, "-sha1" },
      { { padding = "pss" }, "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest" },
      { { padding = "pss", hash = "sha384" }, "-sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max" },
    } do
      local sig = assert(rsa.sign(pair.private, "a reading", s[1]))
      assert.equal(256, #sig)
      assert.is_true(rsa.verify(pair.public, "a reading", sig, s[1]))
      local verify_as = s[2]:gsub("saltlen:max", "saltlen:auto")
      assert.matches("Verified OK", openssl(("dgst %s -verify key -signature sig text"):format(verify_as), { key = pair.public,
        sig = sig, text = "a reading" }))
      local theirs = openssl(("dgst %s -sign key -out out text"):format(s[2]), { key = pair.private, text = "a reading" })
      assert.is_true(rsa.verify(pair.public, "a reading", theirs, s[1]))
      assert.is_false(rsa.verify(pair.public, "a readinG", sig, s[1]))
      assert.is_false(rsa.verify(other.public, "a reading", sig, s[1]))
      assert.is_false(rsa.verify(pair.public, "a reading", sig:sub(1, -2), s[1]))
      assert.is_false(rsa.verify(pair.public, "a reading", sig .. "\0", s[1]))
      assert.is_false(rsa.verify(pair.public, "a reading", "", s[1]))
    end
    local sig = rsa.sign(pair.private, "x")
    assert.is_false(rsa.verify(pair.public, "x", sig, { padding = "pss" }))
    assert.is_false(rsa.verify(pair.public, "x", sig, { hash = "sha512" }))
  end)

  it("takes keys in every form in which vendors hand them out", function()
    local private1 = openssl("rsa -in key -traditional -out out", { key = pair.private })
    local public1 = openssl("rsa -in key -RSAPublicKey_out -out out", { key = pair.private })
    assert.matches("BEGIN RSA PRIVATE KEY", private1)
    assert.matches("BEGIN RSA PUBLIC KEY", public1)
    local box = rsa.encrypt(pair.public, "text")
    for _, private in ipairs { private1, body(private1), body(pair.private), pair.private:gsub("\n", "\r\n"),
      pair.private:gsub("\n", " "),
      "  " .. pair.private .. "\n\n", "Bag Attributes\n" .. pair.private } do
      assert.equal("text", rsa.decrypt(private, box))
    end
    for _, public in ipairs { public1, body(public1), body(pair.public), (body(pair.public):gsub(("."):rep(64), "%0\n")) } do
      assert.equal("text", rsa.decrypt(pair.private, assert(rsa.encrypt(public, "text"))))
    end
  end)

  it("refuses keys that are none, without asking for a passphrase", function()
    local ec = openssl "ecparam -name prime256v1 -genkey -noout | openssl pkey"
    local ec_public = openssl("pkey -in key -pubout", { key = ec })
    local locked = openssl("pkcs8 -topk8 -in key -passout pass:x -out out", { key = pair.private })
    local locked1 = openssl("rsa -traditional -aes128 -passout pass:x -in key -out out", { key = pair.private })
    assert.matches("ENCRYPTED", locked)
    assert.matches("ENCRYPTED", locked1)
    for _, key in ipairs { "", "no key", "AAAA", ec, locked, locked1, body(locked), pair.public, ("A"):rep(20000),
      pair.private:sub(1, 800),
      pair.private:gsub("%-%-%-%-%-END.*", ""), body(pair.private):sub(1, 800), body(pair.private) .. "AAAA", "-----BEGIN " } do
      refuses("key", rsa.decrypt(key, "x"))
      refuses("key", rsa.sign(key, "x"))
    end
    for _, key in ipairs { "", "no key", "AAAA", ec_public, pair.private, body(pair.public):sub(1, 200), "-----BEGIN X-----",
      body(pair.public) .. "AAAA" } do
      refuses("key", rsa.encrypt(key, "x"))
      refuses("key", rsa.verify(key, "x", "y"))
    end
    assert.matches("passphrase", (select(2, rsa.sign(locked, "x"))))
  end)

  it("refuses keys too short to protect and too long to compute with", function()
    local short = openssl "genrsa 512"
    short = short:match "%-%-%-%-%-BEGIN.*%-%-%-%-%-\n"
    assert.matches("1024 to 8192", refuses("key", rsa.sign(short, "x")))
    -- a public key of 8200 bits: INTEGERs of a modulus of 1025 bytes and 65537
    local modulus = "\x80" .. ("\1"):rep(1024)
    local integer = "\2\x82" .. string.pack(">I2", #modulus + 1) .. "\0" .. modulus
    local inner = integer .. "\2\3\1\0\1"
    local public = crypto.base64("\x30\x82" .. string.pack(">I2", #inner) .. inner)
    assert.matches("1024 to 8192", refuses("key", rsa.encrypt(public, "x")))
  end)

  it("raises on misuse", function()
    misuse('unknown padding "none"', rsa.encrypt, pair.public, "x", { padding = "none" })
    misuse('unknown padding "pss"', rsa.encrypt, pair.public, "x", { padding = "pss" })
    misuse('unknown padding "oaep"', rsa.sign, pair.private, "x", { padding = "oaep" })
    misuse('unknown option "paddin"', rsa.encrypt, pair.public, "x", { paddin = "oaep" })
    misuse("unknown algorithm", rsa.sign, pair.private, "x", { hash = "sha3" })
    misuse('"hash" has to be a string', rsa.sign, pair.private, "x", { hash = 256 })
    misuse("string expected", rsa.verify, pair.public, "x")
    misuse("table expected", rsa.sign, pair.private, "x", "sha256")
    misuse("string expected", rsa.encrypt, nil, "x")
  end)
end)

describe("jwt", function()
  local jwt = crypto.jwt
  local payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
  local hs_key = crypto.unbase64url "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
  local hs_token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." .. payload .. ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
  local rs_token = "eyJhbGciOiJSUzI1NiJ9." .. payload .. ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7" ..
    "AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vR" ..
      "K5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K" ..
    "0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np" ..
      "6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB" ..
    "p0igcN_IoypGlUPQGe77Rw"
  local modulus = crypto.unbase64url("ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfH" ..
    "Qp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SF" ..
    "d2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KX" ..
      "BdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQ" ..
    "Y4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ")
  local rs_public = crypto.base64("\x30\x82\1\x0a\2\x82\1\1\0" .. modulus .. "\2\3\1\0\1")
  local before = 1300819379999 -- a millisecond before exp
  local HS = { algorithm = "HS256", now = before }

  local function token(header, claims, key)
    local text = crypto.base64url(header) .. "." .. crypto.base64url(claims)
    return text .. "." .. crypto.base64url(crypto.hmac("sha256", key, text, "raw"))
  end

  it("verifies RFC 7515, A.1 (HS256)", function()
    local claims = assert(jwt.verify(hs_token, hs_key, HS))
    assert.same({ iss = "joe", exp = 1300819380, ["http://example.com/is_root"] = true }, claims)
  end)

  it("verifies RFC 7515, A.2 (RS256)", function()
    local claims = assert(jwt.verify(rs_token, rs_public, { algorithm = "RS256", now = before }))
    assert.equal("joe", claims.iss)
  end)

  it("signs what it verifies", function()
    local pair = crypto.rsa.generate()
    local claims = { sub = "gauge 7", exp = 2000000000, deep = { a = "ü" } }
    for _, c in ipairs { { "HS256", hs_key, hs_key }, { "RS256", pair.private, pair.public } } do
      local made = assert(jwt.sign(claims, c[2], { algorithm = c[1], header = { kid = "k1" } }))
      assert.matches("^[%w_-]+%.[%w_-]+%.[%w_-]+$", made)
      local header = crypto.unbase64url(made:match "^[^.]+")
      assert.matches('"alg":"' .. c[1] .. '"', header, 1, true)
      assert.matches('"typ":"JWT"', header, 1, true)
      assert.matches('"kid":"k1"', header, 1, true)
      assert.same(claims, jwt.verify(made, c[3], { algorithm = c[1], now = 0 }))
    end
    local key, why, code = jwt.sign(claims, "no key", { algorithm = "RS256" })
    refuses("key", key, why, code)
  end)

  it("keeps claims given as JSON byte for byte", function()
    local made = jwt.sign('{ "b": 1.50,\n "a": [] }', hs_key, { algorithm = "HS256" })
    assert.equal('{ "b": 1.50,\n "a": [] }', crypto.unbase64url(made:match "%.([^.]+)%."))
    misuse("claims have to be an object", jwt.sign, "[1]", hs_key, { algorithm = "HS256" })
    misuse("claims have to be an object", jwt.sign, { 1 }, hs_key, { algorithm = "HS256" })
    misuse("bad argument #1", jwt.sign, "{", hs_key, { algorithm = "HS256" })
    misuse("table expected", jwt.sign, 12, hs_key, { algorithm = "HS256" })
  end)

  it("refuses a token that chooses its own algorithm", function()
    local body = crypto.base64url '{"sub":"admin"}'
    for _, alg in ipairs { "none", "None", "NONE", "", "hs256", "HS384", "RS256", "HS256\\u0000" } do
      local header = crypto.base64url(('{"alg":"%s"}'):format(alg))
      refuses("algorithm", jwt.verify(header .. "." .. body .. ".", hs_key, { algorithm = "HS256" }))
      refuses("algorithm", jwt.verify(token(('{"alg":"%s"}'):format(alg), '{"sub":"admin"}', hs_key), hs_key, {
        algorithm = "HS256" }))
    end
    refuses("algorithm", jwt.verify(token("{}", "{}", hs_key), hs_key, { algorithm = "HS256" }))
    refuses("algorithm", jwt.verify(token('{"alg":["HS256"]}', "{}", hs_key), hs_key, { algorithm = "HS256" }))
    -- a public key used as a shared secret
    local pair = crypto.rsa.generate()
    local forged = token('{"alg":"HS256"}', '{"sub":"admin"}', pair.public)
    refuses("algorithm", jwt.verify(forged, pair.public, { algorithm = "RS256" }))
    misuse("shared secret", jwt.verify, forged, pair.public, { algorithm = "HS256" })
    refuses("algorithm", jwt.verify(rs_token, hs_key, HS))
    refuses("algorithm", jwt.verify(hs_token, rs_public, { algorithm = "RS256", now = before }))
  end)

  it("refuses a wrong signature, an altered part and another key", function()
    local head, mid, sig = hs_token:match "^(.-)%.(.-)%.(.*)$"
    refuses("signature", jwt.verify(head .. "." .. mid .. ".", hs_key, HS))
    refuses("signature", jwt.verify(head .. "." .. mid .. "." .. sig:sub(1, -3), hs_key, HS))
    refuses("signature", jwt.verify(head .. "." .. mid .. "." .. sig .. "A", hs_key, HS))
    refuses("signature", jwt.verify(head .. "." .. mid .. "." .. sig .. "=", hs_key, HS))
    refuses("signature", jwt.verify(head .. "." .. mid .. "." .. sig:sub(1, -2) .. "l", hs_key, HS)) -- the same bytes, another text
    refuses("signature", jwt.verify(head .. "." .. mid .. ".e" .. sig:sub(2), hs_key, HS))
    refuses("signature", jwt.verify(head .. "." .. crypto.base64url '{"iss":"eve"}' .. "." .. sig, hs_key, HS))
    refuses("signature", jwt.verify(hs_token, hs_key .. "x", HS))
    refuses("signature", jwt.verify(rs_token, crypto.rsa.generate().public, { algorithm = "RS256", now = before }))
    refuses("signature", jwt.verify(rs_token:sub(1, -400) .. ".", rs_public, { algorithm = "RS256", now = before }))
    refuses("signature", jwt.verify(head .. "." .. mid .. "." .. ("A"):rep(4000), hs_key, HS))
    refuses("key", jwt.verify(rs_token, "no key", { algorithm = "RS256", now = before }))
  end)

  it("refuses what is no token", function()
    for _, s in ipairs { "", ".", "..", "...", "a.b.c", hs_token:match "^[^.]+%.[^.]+", hs_token .. ".x", "." .. hs_token,
      hs_token:gsub("%.", "..", 1), ("A"):rep(70000),
      crypto.base64url "[]" .. "..", crypto.base64url "1" .. "..", crypto.base64url '{"alg":' .. "..",
        crypto.base64 '{"alg":"HS256"} ' .. "=.." } do
      refuses("format", jwt.verify(s, hs_key, HS))
    end
    for _, claims in ipairs { "", "1", "[1]", '"x"', "null", "{" } do
      refuses("format", jwt.verify(token('{"alg":"HS256"}', claims, hs_key), hs_key, HS))
    end
    refuses("format", jwt.verify(token('{"alg":"HS256","crit":["b64"],"b64":false}', "{}", hs_key), hs_key, HS))
  end)

  it("is exact about exp and nbf", function()
    local function at(now, claims, leeway)
      return jwt.verify(token('{"alg":"HS256"}', claims, hs_key), hs_key, { algorithm = "HS256", now = now, leeway = leeway })
    end
    assert.truthy(at(999999, '{"exp":1000}'))
    refuses("time", at(1000000, '{"exp":1000}'))
    assert.truthy(at(1009999, '{"exp":1000}', 10))
    refuses("time", at(1010000, '{"exp":1000}', 10))
    assert.truthy(at(1000000, '{"exp":1000.5}'))
    refuses("time", at(999999, '{"nbf":1000}'))
    assert.truthy(at(1000000, '{"nbf":1000}'))
    assert.truthy(at(990000, '{"nbf":1000}', 10))
    refuses("time", at(989999, '{"nbf":1000}', 10))
    for _, odd in ipairs { '"2000000000"', "null", "true", "{}", "[2000000000]" } do
      refuses("time", at(0, '{"exp":' .. odd .. "}"))
      refuses("time", at(2000000000000, '{"nbf":' .. odd .. "}"))
    end
    refuses("time", jwt.verify(hs_token, hs_key, { algorithm = "HS256" })) -- by the clock
    assert.truthy(jwt.verify(token('{"alg":"HS256"}', ('{"exp":%d}'):format(os.time() + 600), hs_key), hs_key, {
      algorithm = "HS256" }))
  end)

  it("checks issuer and audience", function()
    local function with(claims, options)
      options.algorithm = "HS256"
      return jwt.verify(token('{"alg":"HS256"}', claims, hs_key), hs_key, options)
    end
    assert.truthy(with('{"iss":"joe"}', { issuer = "joe" }))
    refuses("issuer", with('{"iss":"joe"}', { issuer = "jo" }))
    refuses("issuer", with('{"iss":"joe\\u0000x"}', { issuer = "joe" }))
    refuses("issuer", with("{}", { issuer = "joe" }))
    assert.truthy(with('{"aud":"neap"}', { audience = "neap" }))
    assert.truthy(with('{"aud":["x","neap"]}', { audience = "neap" }))
    refuses("audience", with('{"aud":["x"]}', { audience = "neap" }))
    refuses("audience", with('{"aud":[]}', { audience = "neap" }))
    refuses("audience", with('{"aud":{"neap":"neap"}}', { audience = "neap" }))
    refuses("audience", with("{}", { audience = "neap" }))
    refuses("audience", with('{"aud":"neap"}', {})) -- for somebody, and we did not say that we are it
  end)

  it("raises on misuse", function()
    misuse('"algorithm" is missing', jwt.verify, hs_token, hs_key, {})
    misuse("table expected", jwt.verify, hs_token, hs_key)
    misuse('unknown algorithm "none"', jwt.verify, hs_token, hs_key, { algorithm = "none" })
    misuse('unknown algorithm "none"', jwt.sign, {}, hs_key, { algorithm = "none" })
    misuse('unknown option "audiance"', jwt.verify, hs_token, hs_key, { algorithm = "HS256", audiance = "x" })
    misuse("the key is empty", jwt.verify, hs_token, "", HS)
    misuse("the key is empty", jwt.sign, {}, "", { algorithm = "HS256" })
    misuse('"now" has to be a number', jwt.verify, hs_token, hs_key, { algorithm = "HS256", now = "1" })
    misuse("string expected", jwt.verify, nil, hs_key, HS)
  end)
end)
