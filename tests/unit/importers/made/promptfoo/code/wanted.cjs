module.exports = {wanted: 'b'};
