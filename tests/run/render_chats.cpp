// Renders chats with a template as llama.cpp's server does. A line of stdin is a JSON object: template, bos, eos, and
// chats, each with messages and perhaps tools. A line of stdout is a list: a prompt or an error for each chat.
#include "chat.h"
#include "json.h"

#include <iostream>
#include <string>

static std::string render(const common_chat_templates * templates, const common_json & chat) {
    common_chat_templates_inputs inputs;
    inputs.messages        = common_chat_msgs_parse_oaicompat(chat.at("messages"));
    inputs.enable_thinking = common_chat_templates_support_enable_thinking(templates);
    if (chat.contains("tools")) {
        inputs.tools = common_chat_tools_parse_oaicompat(chat.at("tools"));
    }
    return common_chat_templates_apply(templates, inputs).prompt;
}

int main() {
    for (std::string line; std::getline(std::cin, line);) {
        const common_json asked = common_json::parse(line);
        common_json answers     = common_json::array();
        common_chat_templates_ptr templates;
        for (const auto & chat : asked.at("chats")) {
            common_json answer = common_json::object();
            try {
                if (!templates) {
                    const auto text = [&](const char * name) { return asked.at(name).get<std::string>(); };
                    templates = common_chat_templates_init(nullptr, text("template"), text("bos"), text("eos"));
                }
                answer["prompt"] = render(templates.get(), chat);
            } catch (const std::exception & error) {
                answer["error"] = error.what();
            }
            answers.push_back(answer);
        }
        std::cout << answers.dump() << std::endl;
    }
}
