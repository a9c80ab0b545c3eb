-- Who lies in the simulated beds. All invented: the region of the identity numbers does not exist, nor does the hospital.
local patients = {}

local FAMILY = { "王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴" }
local GIVEN = { "安宁", "晓岚", "志远", "春华", "文博", "雨桐", "立新", "秀云", "海波", "若溪", "长青", "明月" }

function patients.of(bed)
  return {
    patientName = FAMILY[(bed - 1) % #FAMILY + 1] .. GIVEN[(bed * 5) % #GIVEN + 1],
    idCard = ("990000%04d%02d%02d%03dX"):format(1938 + bed * 7 % 60, bed % 12 + 1, bed % 28 + 1, bed),
    customerName = "望湖虚构医院",
    patientId = ("P%06d"):format(300000 + bed),
    visitId = ("ZY%06d"):format(260000 + bed),
    inSerialId = ("%08d"):format(70300000 + bed),
  }
end

return patients
