// The button of a block of commands copies what is to be typed: no prompts, no outputs.
{
    const whole = window.playground_text;
    window.playground_text = (block, hidden) => {
        const code = block.querySelector('code.language-console');
        if (!code) {
            return whole(block, hidden);
        }
        let open = false;
        const typed = code.textContent.split('\n').filter(line => {
            const own = open || line.startsWith('$ ');
            open = own && line.endsWith('\\');
            return own;
        });
        return typed.map(line => line.replace(/^\$ /, '') + '\n').join('');
    };
}
