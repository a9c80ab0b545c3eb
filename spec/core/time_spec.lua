-- neap.time: what clocks show in a zone, read strictly and written; the system's own `date` is the judge of zones.
local time = require "neap.time"

local local_pattern = "yyyy-MM-dd HH:mm:ss"

local function parsed(text, zone, pattern)
  local ms, why = time.parse(text, zone, pattern)
  assert(ms, why)
  assert.equal("integer", math.type(ms))
  return ms
end

-- What the text means, written in UTC.
local function utc(text, zone, pattern) return time.format(parsed(text, zone, pattern)) end

describe("time.parse", function()
  it("reads RFC 3339 and what is near it", function()
    local cases = {
      { "1970-01-01T00:00:00Z", 0 }, { "1970-01-01t00:00:00z", 0 }, { "1970-01-01 00:00:00Z", 0 },
      { "1970-01-01T08:00:00+08:00", 0 },
      { "1969-12-31T19:00:00-05:00", 0 }, { "1969-12-31T23:59:59.999Z", -1 }, { "1970-01-01T00:00:00.5Z", 500 },
      { "1970-01-01T00:00:00.0019999Z", 1 },
      { "1970-01-01T00:00:00.123456789+00:00", 123 }, { "1970-01-01T00:00:00-00:00", 0 }, { "1970-01-02", 86400000 },
      { "19700102", 86400000 },
      { "1970-01-01 00:00:01", 1000 }, { "1970-01-01T00:00:01", 1000 }, { "1970-01-01T00:00:01.25", 1250 },
      { "2000-02-29", 951782400000 },
      { "2024-02-29T23:59:59Z", 1709251199000 }, { "0000-01-01", -62167219200000 }, { "9999-12-31T23:59:59.999Z", 253402300799999 },
    }
    for _, c in ipairs(cases) do assert.equal(c[2], parsed(c[1])) end
    assert.equal(1635827613000, parsed("2021-11-02 12:33:33", "Asia/Shanghai"))
    assert.equal(1635827613000, parsed("2021-11-02T12:33:33+08:00", "America/New_York"))
    assert.equal(1635827613000, parsed("2021-11-02 12:33:33", "+08:00"))
    assert.equal("2021-11-01T16:00:00Z", utc("20211102", "Asia/Shanghai"))
    assert.equal("2021-11-02T00:00:00Z", utc("2021-11-02", "Z"))
  end)

  it("refuses all else and names the part", function()
    local cases = {
      { "2021-02-31", "no day 31 in 2021-02" }, { "2021-02-29", "no day 29 in 2021-02" }, { "1900-02-29", "no day 29 in 1900-02" },
      { "2021-04-31T00:00:00Z", "no day 31 in 2021-04" }, { "2021-01-00", "no day 0 in 2021-01" }, { "2021-00-01", "month 0" },
      { "20211301", "month 13" },
      { "2021-01-01T25:00:00Z", "hour 25" }, { "2021-01-01 24:00:00", "hour 24" }, { "2021-01-01 23:60:00", "minute 60" },
      { "2021-01-01 23:59:60", "second 60" }, { "2016-12-31T23:59:60Z", "second 60" },
      { "2021-01-01T00:00:00+24:00", "offset 24:00" },
      { "2021-01-01T00:00:00+00:60", "offset 00:60" }, { "", "expected 4 digits of the year at byte 1" },
      { "x", "expected 4 digits of the year at byte 1" },
      { "21-01-01", "expected 4 digits of the year at byte 1" }, { "2021-1-01", "expected 2 digits of the month at byte 6" },
      { "2021-01-1", "expected 2 digits of the day at byte 9" }, { "2021-0101", "expected '-' at byte 8" },
      { "202101-01", "expected 2 digits of the day at byte 7" },
      { "2021-01-01x", "expected 'T' at byte 11" }, { "2021-01-01T", "expected 2 digits of the hour at byte 12" },
      { "2021-01-01T10:00", "expected ':' at byte 17" },
      { "2021-01-01T10:00Z", "expected ':' at byte 17" }, { "2021-01-01T10:00:0", "expected 2 digits of the second at byte 18" },
      { "2021-01-01T10:00:00.", "expected digits of the second at byte 21" },
      { "2021-01-01T10:00:00.Z", "expected digits of the second at byte 21" },
      { "2021-01-01T10:00:00 ", "expected an offset (Z or +hh:mm) at byte 20" },
      { "2021-01-01T10:00:00+0800", "expected ':' at byte 23" },
      { "2021-01-01T10:00:00+08:00 ", "unexpected text at byte 26" },
      { "2021-01-01T10:00:00Z\0", "unexpected text at byte 21" }, { "20210101 10:00:00", "unexpected text at byte 9" },
      { "20210101T100000Z", "unexpected text at byte 9" }, { " 2021-01-01", "expected 4 digits of the year at byte 1" },
      { "-021-01-01", "expected 4 digits of the year at byte 1" },
      { "2021-01-01T10:00:00,5Z", "expected an offset (Z or +hh:mm) at byte 20" },
      { "2021-01-01T10:00:00GMT", "expected an offset (Z or +hh:mm) at byte 20" },
    }
    for _, c in ipairs(cases) do
      local ms, why, code = time.parse(c[1])
      assert.same({ nil, "not a time: " .. c[2], "time" }, { ms, why, code })
    end
  end)

  it("reads by pattern", function()
    assert.equal(1635827613000, parsed("2021/11/02 12:33:33", "Asia/Shanghai", "yyyy/MM/dd HH:mm:ss"))
    assert.equal(1635827613000, parsed("20211102123333", "Asia/Shanghai", "yyyyMMddHHmmss"))
    assert.equal(1635827613042, parsed("02.11.2021 um 04h33'33.042", nil, "dd.MM.yyyy 'um' HH'h'mm''ss.SSS"))
    assert.equal(1635827613000, parsed("2021-11-02T12:33:33+08:00", nil, "yyyy-MM-dd'T'HH:mm:ssXXX"))
    assert.equal(1635827613000, parsed("2021-11-02T04:33:33Z", "Asia/Shanghai", "yyyy-MM-dd'T'HH:mm:ssXXX"))
    assert.equal(1635827613000, parsed("2021-11-02T12:33:33+0800", nil, "yyyy-MM-dd'T'HH:mm:ssXX"))
    assert.equal(1635827613000, parsed("2021-11-02T12:33:33+08", nil, "yyyy-MM-dd'T'HH:mm:ssX"))
    assert.equal(1635827613000, parsed("2021-11-02T10:03:33+0530", nil, "yyyy-MM-dd'T'HH:mm:ssX"))
    assert.equal("2021-01-01T00:00:00Z", utc("2021", nil, "yyyy"))
    local function why(text, pattern) return select(2, time.parse(text, nil, pattern)) end
    assert.equal("not a time: expected '/' at byte 5", why("2021-11", "yyyy/MM"))
    assert.equal("not a time: unexpected text at byte 5", why("2021-11", "yyyy"))
    assert.equal("not a time: expected 3 digits of the milliseconds at byte 6", why("2021.12", "yyyy.SSS"))
    assert.equal("not a time: no day 31 in 2021-02", why("31.02.2021", "dd.MM.yyyy"))
    assert.equal("not a time: hour 99", why("2021 99", "yyyy HH"))
    assert.equal("not a time: expected an offset (Z or +hh:mm) at byte 5", why("2021z", "yyyyXX"))
  end)

  it("raises for misuse", function()
    local function raises(part, ...)
      local ok, why = pcall(...)
      assert.is_false(ok)
      assert.matches(part, why, 1, true)
    end
    raises("zone 'Asia/Nowhere': there is none of this name", time.parse, "2021-01-01", "Asia/Nowhere")
    raises("'yy' is none of", time.parse, "21", nil, "yy")
    raises("'Q' is none of", time.format, 0, nil, "yyyy Q")
    raises("a quote is not closed", time.format, 0, nil, "yyyy 'T")
    raises("there is no year", time.parse, "10", nil, "HH")
    raises("longer than 512", time.format, 0, nil, ("-"):rep(513))
    raises("string expected", time.parse, 20211102)
    raises("string expected", time.parse, "2021-01-01", 8)
    raises("out of the years 0 to 9999", time.format, math.maxinteger)
    raises("out of the years 0 to 9999", time.format, 253402300800000)
    raises("out of the years 0 to 9999", time.parts, -62167219200001)
    raises("out of the years 0 to 9999", time.format, 253402300799999, "Asia/Shanghai")
    raises("no integer representation", time.format, 0.5)
  end)
end)

describe("time.format", function()
  it("writes RFC 3339 or a pattern", function()
    assert.equal("2021-11-02T04:33:33Z", time.format(1635827613000))
    assert.equal("2021-11-02T12:33:33+08:00", time.format(1635827613000, "Asia/Shanghai"))
    assert.equal("2021-11-02T04:33:33.007Z", time.format(1635827613007, "UTC"))
    assert.equal("1969-12-31T23:59:59.999Z", time.format(-1))
    assert.equal("1969-12-31T20:29:59.999-03:30", time.format(-1, "-0330"))
    assert.equal("0000-01-01T00:00:00Z", time.format(-62167219200000))
    assert.equal("9999-12-31T23:59:59.999Z", time.format(253402300799999))
    assert.equal("02.11.21 'x' +0530 +0530 +05:30", time.format(1635827613000, "Asia/Kolkata", "dd.MM.'21' '''x''' X XX XXX"))
    assert.equal("+08 +0800 Z", time.format(0, "+08", "X XX 'Z'"))
    assert.equal("20211102123333000", time.format(1635827613000, "Asia/Shanghai", "yyyyMMddHHmmssSSS"))
    assert.equal("", time.format(0, nil, ""))
    assert.equal(("+0545."):rep(256), time.format(1e12 // 1 | 0, "Asia/Kathmandu", ("X."):rep(256)))
  end)

  it("keeps the moment where an offset has seconds", function()
    local ms = parsed("1890-01-01", "Asia/Shanghai")
    assert.equal("1890-01-01 00:00:00", time.format(ms, "Asia/Shanghai", local_pattern))
    assert.equal(ms, parsed(time.format(ms, "Asia/Shanghai")))
    assert.equal(ms, time.from_parts(time.parts(ms, "Asia/Shanghai")))
  end)
end)

describe("zones", function()
  it("change where they change", function()
    local cases = { -- zone, the last second before, offset there, offset a second later
      { "Europe/Berlin", "2021-03-28T00:59:59Z", "+01:00", "+02:00" },
      { "Europe/Berlin", "2021-10-31T00:59:59Z", "+02:00", "+01:00" },
      { "America/New_York", "2021-03-14T06:59:59Z", "-05:00", "-04:00" },
      { "America/New_York", "2021-11-07T05:59:59Z", "-04:00", "-05:00" },
      { "Asia/Shanghai", "1991-04-13T17:59:59Z", "+08:00", "+09:00" },
      { "Asia/Shanghai", "1991-09-14T16:59:59Z", "+09:00", "+08:00" },
      { "Australia/Lord_Howe", "2021-04-03T14:59:59Z", "+11:00", "+10:30" },
      { "Australia/Lord_Howe", "2021-10-02T15:29:59Z", "+10:30", "+11:00" },
      { "Europe/Berlin", "2090-03-26T00:59:59Z", "+01:00", "+02:00" },
      { "Europe/Berlin", "2090-10-29T00:59:59Z", "+02:00", "+01:00" },
      { "Australia/Lord_Howe", "2090-04-01T14:59:59Z", "+11:00", "+10:30" },
      { "Pacific/Apia", "2011-12-30T09:59:59Z", "-10:00", "+14:00" },
      { "Asia/Kolkata", "2021-06-01T00:00:00Z", "+05:30", "+05:30" },
      { "Asia/Kolkata", "2090-06-01T00:00:00Z", "+05:30", "+05:30" },
    }
    for _, c in ipairs(cases) do
      local ms = parsed(c[2])
      assert.equal(c[3], time.format(ms, c[1], "XXX"))
      assert.equal(c[4], time.format(ms + 1000, c[1], "XXX"))
    end
  end)

  it("read a skipped time with the offset before, the first of a time that comes twice", function()
    local cases = {
      { "Europe/Berlin", "2021-03-28 01:59:59", "2021-03-28T00:59:59Z" },
      { "Europe/Berlin", "2021-03-28 02:00:00", "2021-03-28T01:00:00Z" },
      { "Europe/Berlin", "2021-03-28 02:30:00", "2021-03-28T01:30:00Z" },
      { "Europe/Berlin", "2021-03-28 03:00:00", "2021-03-28T01:00:00Z" },
      { "Europe/Berlin", "2021-10-31 01:59:59", "2021-10-30T23:59:59Z" },
      { "Europe/Berlin", "2021-10-31 02:00:00", "2021-10-31T00:00:00Z" },
      { "Europe/Berlin", "2021-10-31 02:59:59", "2021-10-31T00:59:59Z" },
      { "Europe/Berlin", "2021-10-31 03:00:00", "2021-10-31T02:00:00Z" },
      { "America/New_York", "2007-03-11 02:30:00", "2007-03-11T07:30:00Z" },
      { "America/New_York", "2007-11-04 01:30:00", "2007-11-04T05:30:00Z" },
      { "Australia/Lord_Howe", "2021-04-04 01:45:00", "2021-04-03T14:45:00Z" },
      { "Australia/Lord_Howe", "2021-10-03 02:15:00", "2021-10-02T15:45:00Z" },
      { "Pacific/Apia", "2011-12-30 12:00:00", "2011-12-30T22:00:00Z" },
      { "Pacific/Apia", "2011-12-31 00:00:00", "2011-12-30T10:00:00Z" },
      { "America/New_York", "2090-03-12 02:30:00", "2090-03-12T07:30:00Z" },
      { "America/New_York", "2090-11-05 01:30:00", "2090-11-05T05:30:00Z" },
    }
    for _, c in ipairs(cases) do assert.equal(c[3], utc(c[2], c[1]), c[1] .. " " .. c[2]) end
  end)

  it("agree with date(1) at random moments", function()
    math.randomseed(1635827613)
    local names = { "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Shanghai", "Australia/Lord_Howe",
      "America/Sao_Paulo", "Africa/Casablanca",
      "America/Nuuk", "Europe/Dublin", "Pacific/Chatham", "Asia/Gaza", "Antarctica/Troll", "America/Santiago", "Africa/Monrovia",
      "UTC", "EST5EDT" }
    local compared = 0
    for _, name in ipairs(names) do
      local file, at = os.tmpname(), {}
      local f = assert(io.open(file, "w"))
      for i = 1, 130 do
        at[i] = math.random(-2500000000, 6000000000)
        f:write("@", at[i], "\n")
      end
      f:close()
      local i = 0
      for line in io.popen(("TZ=%s date -f %s '+%%Y-%%m-%%d %%H:%%M:%%S %%z %%u %%-j'"):format(name, file)):lines() do
        i = i + 1
        local shown, offset, weekday, yearday = line:match "^(%S+ %S+) (%S+) (%S+) (%S+)$"
        assert.equal(shown, time.format(at[i] * 1000, name, local_pattern), name .. " @" .. at[i])
        local p = time.parts(at[i] * 1000, name)
        local minutes = (offset:sub(1, 1) == "-" and -1 or 1) * (tonumber(offset:sub(2, 3)) * 60 + tonumber(offset:sub(4, 5)))
        assert.equal(minutes, p.offset, name .. " @" .. at[i])
        if shown:sub(1, 10) == ("%04d-%02d-%02d"):format(p.year, p.month, p.day) then
          assert.same({ tonumber(weekday), tonumber(yearday) }, { p.weekday, p.yearday })
        end
        assert.equal(at[i] * 1000, parsed(time.format(at[i] * 1000, name)))
        local again = parsed(shown, name) -- the same, or the first of two
        assert.equal(shown, time.format(again, name, local_pattern))
        assert(again <= at[i] * 1000)
        compared = compared + 1
      end
      os.remove(file)
    end
    assert.equal(#names * 130, compared)
  end)

  it("are known by name, and a name opens nothing else", function()
    for _, name in ipairs { "UTC", "Z", "+08:00", "-0330", "+08", "Asia/Shanghai", "Etc/GMT+5", "America/Argentina/Buenos_Aires",
      "EST5EDT", "GMT-0" } do
      assert.is_true(time.zone(name))
    end
    for _, name in ipairs { "", "Nowhere", "Asia", "../zoneinfo/UTC", "/etc/passwd", "Asia/../UTC", "zone.tab", "tzdata.zi",
      "+../a", "+24:00", "+08:60", "+8", "+08-00", "Asia//Tokyo",
      "Asia/", "UTC\0", "Asia/Tokyo\0", "right/UTC", "leapseconds", ("a"):rep(65), "UTC ", "asia tokyo" } do
      local ok, why, code = time.zone(name)
      assert.is_nil(ok)
      assert.matches("zone", why)
      assert.equal("time", code)
    end
  end)
end)

describe("time.parts", function()
  it("come apart and together", function()
    assert.same({ year = 2021, month = 11, day = 2, hour = 12, minute = 33, second = 33, ms = 7, weekday = 2, yearday = 306,
      offset = 480 },
      time.parts(1635827613007, "Asia/Shanghai"))
    assert.equal(4, time.parts(0).weekday)
    assert.equal(366, time.parts(parsed "2024-12-31").yearday)
    math.randomseed(7)
    for _ = 1, 500 do
      local ms = math.random(-62167219200000 + 86400000, 253402300799999 - 86400000)
      assert.equal(ms, time.from_parts(time.parts(ms, "Europe/Berlin"), "Europe/Berlin"))
      assert.equal(ms, parsed(time.format(ms, "Australia/Lord_Howe")))
    end
    assert.equal(1635827613000, time.from_parts({ year = 2021, month = 11, day = 2, hour = 12, minute = 33, second = 33 },
      "Asia/Shanghai"))
    assert.equal("not a time: no day 29 in 2023-02", select(2, time.from_parts { year = 2023, month = 2, day = 29 }))
    assert.equal("not a time: millisecond 1000", select(2, time.from_parts { year = 2023, ms = 1000 }))
    assert.equal("not a time: month -1000000", select(2, time.from_parts { year = 2023, month = math.mininteger }))
    assert.has_error(function() time.from_parts {} end)
    assert.has_error(function() time.from_parts { year = "2023" } end)
    assert.has_error(function() time.from_parts { year = 2023.5 } end)
  end)
end)

describe("time.duration and time.now", function()
  it("count in ms", function()
    assert.equal(900000, time.duration "15m")
    assert.equal(5400000, time.duration "1h30m")
    assert.equal(15000, time.duration "15")
    assert.equal(1500, time.duration(1.5))
    assert.equal(0, time.duration(0))
    for _, d in ipairs { "", "x", "15 m", "-1s", -1, 0 / 0, math.huge, 1e300, "\xff" } do
      local ms, why, code = time.duration(d)
      assert.is_nil(ms)
      assert.matches("^not a duration", why)
      assert(utf8.len(why))
      assert.equal("time", code)
    end
    assert.has_error(function() time.duration {} end)
    assert.equal("integer", math.type(time.now()))
    assert(math.abs(time.now() - os.time() * 1000) < 60000)
  end)
end)
