-- The endpoints of Tuya's document (设备管理), once for both faces: serving them, and calling them as commands of the same names.
-- { command, "METHOD /path", about, query?, body?, writes? }; names of fields are the vendor's.

local function text(about, more)
  local t = { "string", about = about }
  for k, v in pairs(more or {}) do t[k] = v end
  return t
end

local function optional(about, more)
  local t = text(about, more)
  t.optional = true
  return t
end

local function number(about, min, max, more)
  local t = { "integer", optional = true, min = min, max = max, about = about }
  for k, v in pairs(more or {}) do t[k] = v end
  return t
end

local NAME = { max = 255, pattern = "%C*" }
local function person(required)
  return {
    nick_name = text("用户名称", { max = 255, person = true, min = required and 1 or 0 }),
    sex = { "integer", min = 0, max = 9, about = "性别" },
    birthday = number("出生年月日, ms", -62135596800000, 253402300799999, { person = true }),
    height = number("身高, cm", 0, 1000), weight = number("体重, g", 0, 10000000),
    contact = optional("联系方式", { max = 255, person = true }),
  }
end

local PAGE = { page_no = number("当前页, from 1", 1, 1000000000), page_size = number("分页大小", 1, 1000) }

return {
  { "factory-infos", "GET /v1.0/devices/factory-infos", about = "查询设备出厂信息",
    query = { device_ids = text("设备 ID, separated by commas", { min = 1, max = 16384 }) } },
  { "device", "GET /v1.0/devices/{device_id}", about = "获取设备详情" },
  { "user-devices", "GET /v1.0/users/{uid}/devices", about = "获取用户下设备列表",
    query = { from = optional("来源", { values = { "home", "sharing" } }), page_no = PAGE.page_no, page_size = PAGE.page_size } },
  { "devices", "GET /v1.0/devices", about = "获取设备列表",
    query = {
      page_no = PAGE.page_no, page_size = PAGE.page_size, last_id = optional("of the page before", { pattern = "%d*", max = 18 }),
      schema = optional "应用标识", product_id = optional("产品 ID", { pattern = "%C*", max = 255 }),
      device_ids = optional("separated by commas", { max = 16384 }),
      start_time = optional("10 位时间戳: first paired at or after it", { pattern = "%d*", max = 10 }),
      end_time = optional("10 位时间戳: first paired at or before it", { pattern = "%d*", max = 10 }),
    } },
  { "logs", "GET /v1.0/devices/{device_id}/logs", about = "查询设备日志",
    query = {
      type = text("1 to 10, separated by commas", { min = 1, max = 64 }),
      start_time = optional("13 位; 0 or empty: 7 days ago", { pattern = "%d*", max = 13 }),
      end_time = text("13 位", { min = 1, pattern = "%d+", max = 13 }),
      codes = optional("功能点, separated by commas", { pattern = "%C*", max = 4096 }),
      size = number("how many, 20 where absent", 1, 1000),
      query_type = number("1 free, 2 paid", nil, nil, { values = { 1, 2 } }), start_row_key = optional("free", { max = 4096 }),
      last_row_key = optional("paid", { max = 4096 }), last_event_time = optional("paid", { pattern = "%d*", max = 13 }),
    } },
  { "sub-devices", "GET /v1.0/devices/{device_id}/sub-devices", about = "查询网关下的设备列表" },
  { "multiple-names", "GET /v1.0/devices/{device_id}/multiple-names", about = "获取多路名称" },
  { "users", "GET /v1.0/devices/{device_id}/users", about = "查询设备关联的用户列表" },
  { "user.get", "GET /v1.0/devices/{device_id}/users/{user_id}", about = "查询指定用户信息" },

  { "rename", "PUT /v1.0/devices/{device_id}", about = "修改设备名称", writes = true, body = { name = text("名称", NAME) } },
  { "function-name", "PUT /v1.0/devices/{device_id}/functions/{function_code}", about = "修改功能点名称", writes = true,
    body = { name = text("功能点名称", NAME) } },
  { "multiple-name", "PUT /v1.0/devices/{device_id}/multiple-name", about = "修改多路名称", writes = true,
    body = { identifier = text("标识", { max = 128, pattern = "%C*" }), name = text("名称", NAME) } },
  { "reset-factory", "PUT /v1.0/devices/{device_id}/reset-factory", about = "恢复设备出厂设置", writes = true },
  { "remove", "DELETE /v1.0/devices/{device_id}", about = "根据设备 ID 来移除设备", writes = true },
  { "user.add", "POST /v1.0/devices/{device_id}/user", about = "新增设备用户", writes = true, body = person(true) },
  { "user.update", "PUT /v1.0/devices/{device_id}/users/{user_id}", about = "修改指定用户", writes = true, body = person(false) },
  { "user.remove", "DELETE /v1.0/devices/{device_id}/users/{user_id}", about = "删除指定用户", writes = true },
}
